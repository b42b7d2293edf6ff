// Runs the compiled CPU kernels over every finite float32, and every bfloat16 and float16, with the
// default parameters, and compares value and slope with float64 through libm (make exhaustive).
//
//     exhaustive [--step N] [--threads N] [name ...]      every Nth bit pattern; all activations
//
// Errors are in ulp of max(|exact|, largest term): where a slope is a sum of terms of opposite
// signs, such as Phi(x) + x phi(x), the larger of them; else the exact result alone. The slope is what
// the backward kernel makes of the tensor that the forward pass saves. 16-bit results are
// counted where they are not the exact ones, correctly rounded.

#include <atomic>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../csrc/cpu/table.h"
#include "../csrc/formulas/activations.h"

namespace {

using namespace fastact::cpu;

constexpr double value_bound = 3, slope_bound = 4;
constexpr int misrounded_bound = 16;
constexpr double infinity = std::numeric_limits<double>::infinity();

struct Exact {
  double value, slope;
  double term = 0;  // of the slope, the largest
};

// ---------------------------------------------------------------------------------------------
// The exact functions in double, written so that nothing cancels

double sigmoid(double w) {
  double e = std::exp(-std::fabs(w));
  return (w < 0 ? e : 1) / (1 + e);
}

// x F(x), from F and F'.
Exact gated(double x, double f, double df) {
  return {x * f, f + x * df, std::fmax(std::fabs(f), std::fabs(x * df))};
}

Exact gelu(double x) {
  double density = 0.39894228040143267794 * std::exp(-0.5 * x * x);
  return gated(x, 0.5 * std::erfc(-x * 0.70710678118654752440), density);
}

Exact sigmoid_gated(double x, double w, double dw) {
  double s = sigmoid(w);
  return gated(x, s, s * sigmoid(-w) * dw);
}

Exact gelu_tanh(double x) {
  constexpr double b0 = 1.59576912160573071176, b1 = 0.044715 * b0;
  double square = std::fmin(x * x, 1e4);  // w' = inf would meet F' = 0
  return sigmoid_gated(x, x * (b0 + b1 * x * x), b0 + 3 * b1 * square);
}

Exact mish(double x) {
  // tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2), and its derivative 4 e (1 + e) / (n + 2)^2.
  double e = std::exp(std::fmin(x, 100.0)), n = e * (e + 2), d = n + 2;
  return gated(x, n / d, 4 * e * (1 + e) / (d * d));
}

Exact elu(double x, double alpha, double scale) {
  double left = alpha * scale;
  return x > 0 ? Exact{scale * x, scale} : Exact{left * std::expm1(x), left * std::exp(x)};
}

struct Activation {
  const char* name;
  Exact (*exact)(double);
  std::vector<double> parameters = {};
  bool saves_output = false;
  bool slope_of_rounded = false;  // the slope follows from a rounded output
};

const std::vector<Activation> references = {
    {"gelu", gelu},
    {"gelu_tanh", gelu_tanh},
    {"quick_gelu", [](double x) { return sigmoid_gated(x, 1.702 * x, 1.702); }},
    {"silu", [](double x) { return sigmoid_gated(x, x, 1); }},
    // y - y^2
    {"sigmoid",
     [](double x) { return Exact{sigmoid(x), sigmoid(x) * sigmoid(-x), sigmoid(x)}; },
     {},
     true,
     true},
    // 1 - y^2
    {"tanh",
     [](double x) {
       double c = std::cosh(std::fmin(std::fabs(x), 100.0));
       return Exact{std::tanh(x), 1 / (c * c), 1};
     },
     {},
     true,
     true},
    {"softplus",
     [](double x) {
       if (x > 20) return Exact{x, 1};
       return Exact{std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x))), sigmoid(x)};
     },
     {1, 20}},
    {"logsigmoid",
     [](double x) {
       return Exact{std::fmin(x, 0) - std::log1p(std::exp(-std::fabs(x))), sigmoid(-x)};
     }},
    {"mish", mish},
    {"elu", [](double x) { return elu(x, 1, 1); }, {1}},
    {"selu",
     [](double x) {
       return elu(x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946);
     }},
    {"celu", [](double x) { return elu(x, 1, 1); }, {1}},
    {"relu", [](double x) { return Exact{x > 0 ? x : 0, double(x > 0)}; }, {}, true},
    {"relu6",
     [](double x) { return Exact{std::fmin(std::fmax(x, 0), 6), double(x > 0 && x < 6)}; },
     {},
     true},
    {"leaky_relu",
     [](double x) { return x > 0 ? Exact{x, 1} : Exact{x * double(0.01f), double(0.01f)}; },
     {0.01},
     true},
    {"squared_relu", [](double x) { return x > 0 ? Exact{x * x, 2 * x} : Exact{0, 0}; }},
    {"hardswish",
     [](double x) {
       if (x <= -3 || x >= 3) return x < 0 ? Exact{0, 0} : Exact{x, 1};
       return Exact{x * (x + 3) / 6, x / 3 + 0.5, std::fmax(std::fabs(x / 3), 0.5)};
     }},
    {"hardsigmoid",
     [](double x) {
       bool inside = x > -3 && x < 3;
       return Exact{inside ? (x + 3) / 6 : double(x > 0), inside ? 1.0 / 6 : 0};
     }},
};

// ---------------------------------------------------------------------------------------------
// The kernels

struct Build {
  const char* name;
  const PointwiseTable* table;
  bool supported;
};

}  // namespace

namespace fastact::cpu {
#if defined(__x86_64__)
extern const PointwiseTable pointwise_v2, pointwise_v3, pointwise_v4;
#else
extern const PointwiseTable pointwise_generic;
#endif
}  // namespace fastact::cpu

namespace {

std::vector<Build> builds() {
  std::vector<Build> all = {
#if defined(__x86_64__)
      {"v2", &pointwise_v2, bool(__builtin_cpu_supports("x86-64-v2"))},
      {"v3", &pointwise_v3, bool(__builtin_cpu_supports("x86-64-v3"))},
      {"v4", &pointwise_v4, bool(__builtin_cpu_supports("x86-64-v4"))},
#else
      {"generic", &pointwise_generic, true},
#endif
  };
  std::erase_if(all, [](const Build& build) { return !build.supported; });
  return all;
}

template <template <class, class> class... Formulas>
int position(const char* name, fastact::List<Formulas...>) {
  int index = 0, found = -1;
  ((std::strcmp(Formulas<float, fastact::Constants<float>>::name, name) == 0 ? found = index++
                                                                             : index++),
   ...);
  return found;
}

// Value and slope of n elements, by one build's kernels.
template <class S>
void run(const UnaryKernels& kernels, const Activation& activation, std::vector<S>& x,
         std::vector<S>& one, std::vector<S>& value, std::vector<S>& slope) {
  const double* parameters = activation.parameters.data();
  void* forward[] = {x.data(), value.data()};
  kernels.forward(forward, int64_t(x.size()), parameters);
  void* backward[] = {one.data(), activation.saves_output ? value.data() : x.data(), slope.data()};
  kernels.backward(backward, int64_t(x.size()), parameters);
}

// ---------------------------------------------------------------------------------------------
// Comparing

// The unit in the last place of a format at a magnitude: 2^(exponent - bits), not below the
// subnormals' 2^lowest.
double unit(double magnitude, int bits, int lowest) {
  uint64_t exponent = std::bit_cast<uint64_t>(magnitude) >> 52 & 2047;
  int64_t e = int64_t(exponent) - 1023 - bits;
  return std::bit_cast<double>(uint64_t((e < lowest ? lowest : e) + 1023) << 52);
}

double error(float got, double exact, double scale) {
  constexpr double largest = std::numeric_limits<float>::max();
  scale = std::fmin(std::fmax(std::fabs(exact), scale), largest);
  if (std::fabs(exact) > largest && std::fabs(double(got)) >= largest) exact = double(got);
  double difference = std::fabs(double(got) - exact);
  double ulps = difference == 0 || double(got) == exact ? 0 : difference / unit(scale, 23, -149);
  return ulps <= 1e9 ? ulps : infinity;  // NaN too
}

struct Worst {
  double ulp = 0;
  float at = 0;
  void take(double error, float x) {
    if (error > ulp) ulp = error, at = x;
  }
  void take(const Worst& other) { take(other.ulp, other.at); }
};

struct Result {
  Worst value, slope;
};

// Every step-th float32, in chunks that the threads take from a common counter.
std::vector<Result> sweep(const Activation& activation, const std::vector<Build>& isas, int index,
                          uint64_t step, int threads) {
  constexpr uint64_t chunk = 1 << 14;
  const uint64_t count = ((uint64_t(1) << 32) - 1) / step + 1;
  std::atomic<uint64_t> next = 0;
  std::mutex mutex;
  std::vector<Result> total(isas.size());
  auto work = [&] {
    std::vector<Result> mine(isas.size());
    std::vector<float> x, one(chunk, 1.0f), value(chunk), slope(chunk);
    std::vector<Exact> exact(chunk);
    for (uint64_t start; (start = next.fetch_add(chunk)) < count;) {
      x.clear();
      for (uint64_t i = start; i < start + chunk && i < count; ++i) {
        float candidate = std::bit_cast<float>(uint32_t(i * step));
        if (std::isfinite(candidate)) x.push_back(candidate);
      }
      for (size_t i = 0; i < x.size(); ++i) exact[i] = activation.exact(double(x[i]));
      for (size_t isa = 0; isa < isas.size(); ++isa) {
        run(isas[isa].table->unary[index][float32], activation, x, one, value, slope);
        for (size_t i = 0; i < x.size(); ++i) {
          mine[isa].value.take(error(value[i], exact[i].value, 0), x[i]);
          mine[isa].slope.take(error(slope[i], exact[i].slope, exact[i].term), x[i]);
        }
      }
    }
    std::lock_guard lock(mutex);
    for (size_t isa = 0; isa < isas.size(); ++isa) {
      total[isa].value.take(mine[isa].value);
      total[isa].slope.take(mine[isa].slope);
    }
  };
  std::vector<std::thread> pool;
  for (int i = 1; i < threads; ++i) pool.emplace_back(work);
  work();
  for (auto& thread : pool) thread.join();
  return total;
}

struct Format {
  const char* name;
  DType dtype;
  int mantissa_bits, lowest;
  double largest;
};
constexpr Format formats[] = {{"bfloat16", bfloat16, 7, -133, 0x1.fep127},
                              {"float16", float16, 10, -24, 65504}};

double decode(uint16_t bits, const Format& format) {
  int exponent = (bits & 0x7fff) >> format.mantissa_bits;
  int mantissa = bits & ((1 << format.mantissa_bits) - 1);
  double magnitude;
  if (exponent == (1 << (15 - format.mantissa_bits)) - 1)
    magnitude = mantissa ? std::numeric_limits<double>::quiet_NaN() : infinity;
  else
    magnitude = exponent
                    ? std::ldexp(mantissa + (1 << format.mantissa_bits), format.lowest + exponent - 1)
                    : std::ldexp(mantissa, format.lowest);
  return bits & 0x8000 ? -magnitude : magnitude;
}

bool correctly_rounded(double got, double exact, const Format& format) {
  double quantum = unit(std::fabs(exact), format.mantissa_bits, format.lowest);
  double rounded = std::nearbyint(exact / quantum) * quantum;
  if (std::fabs(rounded) > format.largest) rounded = std::copysign(infinity, exact);
  return got == rounded;
}

// How many of all finite inputs of a 16-bit format give a value or slope that is not the exact one
// rounded.
std::pair<int, int> misrounded(const Activation& activation, const Build& build, int index,
                               const Format& format) {
  std::vector<uint16_t> x;
  for (int bits = 0; bits < 65536; ++bits)
    if (std::isfinite(decode(uint16_t(bits), format))) x.push_back(uint16_t(bits));
  uint16_t one_bits = uint16_t(((1 << (14 - format.mantissa_bits)) - 1) << format.mantissa_bits);
  std::vector<uint16_t> one(x.size(), one_bits), value(x.size()), slope(x.size());
  run(build.table->unary[index][format.dtype], activation, x, one, value, slope);
  int values = 0, slopes = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    Exact exact = activation.exact(decode(x[i], format));
    values += !correctly_rounded(decode(value[i], format), exact.value, format);
    slopes += !correctly_rounded(decode(slope[i], format), exact.slope, format);
  }
  return {values, slopes};
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t step = 1;
  int threads = 2;
  std::vector<std::string> names;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument == "--step" && i + 1 < argc)
      step = std::strtoull(argv[++i], nullptr, 10);
    else if (argument == "--threads" && i + 1 < argc)
      threads = std::atoi(argv[++i]);
    else
      names.push_back(argument);
  }
  const auto isas = builds();
  bool good = step > 0;
  std::printf(
      "%-13s isa     value at               slope at               16-bit misrounded: value, slope\n",
      "");
  for (const Activation& activation : references) {
    bool wanted = names.empty();
    for (const auto& name : names) wanted |= name == activation.name;
    if (!wanted) continue;
    int index = position(activation.name, fastact::Activations{});
    auto results = sweep(activation, isas, index, step, threads);
    for (size_t isa = 0; isa < isas.size(); ++isa) {
      const Result& r = results[isa];
      bool within = r.value.ulp <= value_bound && r.slope.ulp <= slope_bound;
      std::printf("%-13s %-4s %8.3f %-14.9g %8.3f %-14.9g", activation.name, isas[isa].name,
                  r.value.ulp, double(r.value.at), r.slope.ulp, double(r.slope.at));
      for (const Format& format : formats) {
        auto [values, slopes] = misrounded(activation, isas[isa], index, format);
        std::printf("  %s %d %d", format.name, values, slopes);
        if (activation.slope_of_rounded) slopes = 0;
        within &= values <= misrounded_bound && slopes <= misrounded_bound;
      }
      std::printf("%s\n", within ? "" : "  FAILED");
      good &= within;
    }
    std::fflush(stdout);
  }
  return good ? 0 : 1;
}
