// What differs between float and double, and the coefficients of every approximation.
//
// A formula is templated on the type it computes in, T, and on its constants, C: Constants<T>, or Brief
// and Halved for float results that are rounded to bfloat16 and to float16; or Wide. The comments give
// the relative error of the approximation itself; tools/fit.py prints the coefficients.
#pragma once

#include <stdint.h>

namespace fastact {
namespace {

template <class T>
struct Constants;

template <>
struct Constants<float> {
  using Bits = int32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr int bias = 127;
  // Whether products whose rounding error an exponent magnifies are carried in two floats.
  static constexpr bool compensates = true;
  static constexpr bool rounds_again = false;      // to float16: a product must not be rounded twice
  static constexpr float round_magic = 0x1.8p23f;  // adding it rounds to an integer
  // exp is returned times 2^lift where its result may be subnormal.
  static constexpr int lift_bits = 64;
  static constexpr float lift = 0x1p64f;
  static constexpr float unlift = 0x1p-64f;
  // Where the lifted exp is 2^(-191 + 64), of which only the biased exponent 0 is left: exactly zero.
  // (GELU takes half of it, 2^(-190 + 63).)
  static constexpr float exp_limit = 132.39f;
  static constexpr float erf_limit = 16.229f;
  static constexpr float tanh_gelu_limit = 11.68f;
  static constexpr float quick_limit = 77.78f;
  static constexpr float expm1_low = -40.0f;
  static constexpr float expm1_overflow = 89.0f;  // exp(89) overflows
  static constexpr float tanh_limit = 10.0f;      // its tanh rounds to 1
  static constexpr float log2e = 1.44269502f, log2e_low = 1.92596299e-8f;
  static constexpr float ln2_high = 0x1.63p-1f;  // 10 bits: k * ln2_high is exact
  static constexpr float ln2_low = -2.12194440054690583e-4f;
  // (2^f - 1) / f for |f| <= 1/2: 4e-9 of 2^f
  static constexpr float exp2[] = {0.69314718821f,   0.24022650762f,   0.05550356248f,
                                   0.0096180818073f, 0.0013391323593f, 0.00015453561402f};
  // (expm1(r) - r) / r^2 for |r| <= ln(2)/2: 1.3e-7 of a term that is at most 0.06 of exp(r)
  static constexpr float expm1[] = {0.5f, 0.166665767f, 0.0416665542f, 0.00836323288f, 0.00139262508f};
  // (atanh(s) / s - 1) / s^2 in s^2 for s <= 1/3: 4e-9 of atanh
  static constexpr float atanh[] = {0.333331608f, 0.200122976f, 0.139825789f, 0.140788892f};
  // 1 / (2 R(t)) - t sqrt(pi / 2) = (1 + t num(t)) / (1 + t den(t)) with R(t) = Phi(-t) exp(t^2/2),
  // for 0 <= t <= 14.6: 3.9e-8 of 1 / R, 1.3e-8 below 2.5 and 3e-9 below 0.4
  // Moved by single units in their last places, until no GELU is 3 ulp off: the fit itself has 3.01.
  static constexpr float mills_num[] = {0.439245969055f, 0.108257345855f, 0.0109211662785f,
                                        1.719409056e-6f};
  static constexpr float mills_den[] = {0.89467543364f, 0.37910202146f, 0.085304826498f,
                                        0.0087728807703f};
};

template <>
struct Constants<double> {
  using Bits = int64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr int bias = 1023;
  static constexpr bool compensates = true;
  static constexpr bool rounds_again = false;  // to float16: a product must not be rounded twice
  static constexpr double round_magic = 0x1.8p52;
  static constexpr int lift_bits = 256;
  static constexpr double lift = 0x1p256;
  static constexpr double unlift = 0x1p-256;
  static constexpr double exp_limit = 886.53;
  static constexpr double erf_limit = 42.091;
  static constexpr double tanh_gelu_limit = 22.84;
  static constexpr double quick_limit = 520.87;
  static constexpr double expm1_low = -40.0;
  static constexpr double expm1_overflow = 710.0;
  static constexpr double tanh_limit = 20.0;
  static constexpr double log2e = 1.442695040888963407, log2e_low = 2.035527374e-17;
  static constexpr double ln2_high = 0x1.62e42feep-1;  // 32 bits
  static constexpr double ln2_low = 0x1.a39ef35793c76p-33;
  // 7e-18 of 2^f
  static constexpr double exp2[] = {
      0.6931471805599453094,     0.2402265069591009932,   0.05550410866482159492,
      0.009618129107606187623,   0.001333355814641656171, 0.000154035304429088976,
      0.00001525273383046127974, 1.3215441875881883e-6,   1.017806206630946959e-7,
      7.072727791672383828e-9,   4.455036203781183659e-10};
  // 2e-16 of a term that is at most 0.06 of exp(r)
  static constexpr double expm1[] = {
      0.500000000000000103,   0.166666666666666675,   0.0416666666666238205,    0.0083333333333300382,
      0.00138888889173670806, 0.00019841269863171556, 0.0000248015210578682052, 2.75572682769056962e-6,
      2.76202015910315488e-7, 2.5100472505694996e-8};
  // 1.3e-18 of atanh
  static constexpr double atanh[] = {
      0.333333333333330748,  0.200000000000928737,  0.142857142727270573,  0.111111120403738366,
      0.0909087041625240226, 0.0769330702115200388, 0.0665018701633731217, 0.0605508436403460883,
      0.0416225325593041029, 0.0852208178139069906};
  // 1.5e-17 for 0 <= t <= 39
  static constexpr double mills_num[] = {
      1.2348510811616211235,    0.7799564827311986515,      0.31978396889087097035,
      0.0924195539184724669,    0.019377308237591044545,    0.002939027991388515719,
      0.0003112627272097827348, 0.000020993118093562052665, 6.94646639378637462e-7};
  static constexpr double mills_den[] = {1.690280657674255863,      1.413140514475708483,
                                         0.7564181493238106471,     0.2846062674725078017,
                                         0.078329609635691669,      0.01595423437834328076,
                                         0.002378505190454256949,   0.0002494602207517865014,
                                         0.00001675008480206219451, 5.54247828813928021e-7};
};

// For results that keep 11 of float's 24 bits.
struct Halved : Constants<float> {
  static constexpr bool rounds_again = true;
};

// For results that keep 8 of float's 24 bits: shorter polynomials, and one float for every product.
struct Brief : Constants<float> {
  static constexpr bool compensates = false;
  // 5.7e-6 of 2^f
  static constexpr float exp2[] = {0.69313656549f, 0.24022528154f, 0.055840968447f, 0.0096570201406f};
  // 7e-6 of atanh
  static constexpr float atanh[] = {0.33220361539f, 0.22636031107f};
  // 2.8e-6 of 1 / R
  static constexpr float mills_num[] = {0.35322614117f, 0.059530095215f};
  static constexpr float mills_den[] = {0.80873245378f, 0.29067645585f, 0.04712979584f};
};

// For float32 results without FMA: float's polynomials in double, where no product needs two parts.
struct Wide : Constants<double> {
  static constexpr bool compensates = false;
  static constexpr double exp2[] = {0.69314718821,   0.24022650762,   0.05550356248,
                                    0.0096180818073, 0.0013391323593, 0.00015453561402};
  static constexpr double expm1[] = {0.5, 0.166665767, 0.0416665542, 0.00836323288, 0.00139262508};
  static constexpr double atanh[] = {0.333331608, 0.200122976, 0.139825789, 0.140788892};
  static constexpr double mills_num[] = {0.43924604866, 0.10825735723, 0.0109211823545,
                                         1.71877455145e-6};
  static constexpr double mills_den[] = {0.89467544753, 0.37910204963, 0.085304900987, 0.0087728767637};
};

}  // namespace
}  // namespace fastact
