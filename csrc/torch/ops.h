// The pointwise ops, generic over the device: checks, allocation, and the call of a kernel. Device
// folders provide the kernels; register_*.cpp instantiates these for each activation.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "allocate.h"

namespace fastact {

// Users get their errors from the Python functions; these keep a direct call of torch.ops.fastact.*
// from reading out of bounds, or another device's memory.
inline void check_device(const char* op, const Tensor& x, const Tensor& t) {
  STD_TORCH_CHECK(t.is_cuda() == x.is_cuda() && t.get_device() == x.get_device(), "fastact::", op,
                  ": expected all tensors to be on one device");
}

inline void check_alike(const char* op, std::initializer_list<const Tensor*> tensors) {
  const Tensor& first = **tensors.begin();
  for (const Tensor* t : tensors) {
    check_device(op, first, *t);
    STD_TORCH_CHECK(t->scalar_type() == first.scalar_type(), "fastact::", op,
                    ": expected all tensors to have one dtype");
    STD_TORCH_CHECK(t->dim() == first.dim(), "fastact::", op,
                    ": expected all tensors to have one shape");
    for (int64_t d = 0; d < first.dim(); ++d)
      STD_TORCH_CHECK(t->size(d) == first.size(d), "fastact::", op,
                      ": expected all tensors to have one shape");
  }
}

// Whether elements lie at the same places of both.
inline bool have_one_layout(const Tensor& a, const Tensor& b) {
  for (int64_t d = 0; d < a.dim(); ++d)
    if (a.size(d) != 1 && a.stride(d) != b.stride(d)) return false;
  return true;
}

// Whether x's elements fill their memory without gaps or overlaps, in whatever order.
inline bool is_dense(const Tensor& x) {
  if (x.is_contiguous()) return true;
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
  for (int64_t d = 0; d < x.dim(); ++d)
    if (x.size(d) != 1) dims.emplace_back(x.stride(d), x.size(d));
  std::sort(dims.begin(), dims.end());
  int64_t expected = 1;
  for (auto [stride, size] : dims) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

// t itself, or a copy, with its elements where a dense tensor has them.
inline Tensor laid_out_like(const Tensor& dense, const Tensor& t) {
  if (have_one_layout(t, dense)) return t;
  Tensor copy = torch::stable::empty_like(dense);
  return torch::stable::copy_(copy, t);
}

// Kernels answers forward(dtype), backward(dtype) and double_backward(dtype) with what
// pointwise(kernel, params, operands, inputs) takes on its device.
template <class Kernels, class Parameters = std::make_index_sequence<Kernels::arity>>
struct UnaryOps;

template <class Kernels, size_t... I>
struct UnaryOps<Kernels, std::index_sequence<I...>> {
  template <size_t>
  using Parameter = double;

  static Tensor forward(Tensor x, Parameter<I>... p) {
    const std::array<double, sizeof...(I) + 1> params = {p...};
    std::array operands = {x, allocate_like(x)};
    pointwise(Kernels::forward(x.scalar_type()), params.data(), operands, 1);
    return operands[1];
  }

  static void forward_(Tensor x, Parameter<I>... p) {
    const std::array<double, sizeof...(I) + 1> params = {p...};
    std::array operands = {x, x};
    pointwise(Kernels::forward(x.scalar_type()), params.data(), operands, 1);
  }

  static Tensor backward(Tensor grad, Tensor saved, Parameter<I>... p) {
    check_alike(Kernels::name, {&saved, &grad});
    const std::array<double, sizeof...(I) + 1> params = {p...};
    std::array operands = {grad, saved, allocate_like(saved)};
    pointwise(Kernels::backward(saved.scalar_type()), params.data(), operands, 2);
    return operands[2];
  }

  static std::tuple<Tensor, Tensor> double_backward(Tensor v, Tensor grad, Tensor saved,
                                                    Parameter<I>... p) {
    check_alike(Kernels::name, {&saved, &grad, &v});
    const std::array<double, sizeof...(I) + 1> params = {p...};
    std::array operands = {v, grad, saved, allocate_like(saved), allocate_like(saved)};
    pointwise(Kernels::double_backward(saved.scalar_type()), params.data(), operands, 3);
    return {operands[3], operands[4]};
  }

  template <class Library>
  static void implement(Library& m) {
    const std::string name = Kernels::name;
    m.impl(name.c_str(), TORCH_BOX((&UnaryOps::forward)));
    m.impl((name + "_").c_str(), TORCH_BOX((&UnaryOps::forward_)));
    m.impl((name + "_backward").c_str(), TORCH_BOX((&UnaryOps::backward)));
    m.impl((name + "_double_backward").c_str(), TORCH_BOX((&UnaryOps::double_backward)));
  }
};

// value(gate) * up, of two tensors ("_mul") and of the halves of one ("_glu").
template <class Kernels>
struct GatedOps {
  static Tensor forward(Tensor gate, Tensor up) {
    check_alike(Kernels::name, {&gate, &up});
    std::array operands = {gate, up, allocate_like(gate)};
    pointwise(Kernels::forward(gate.scalar_type()), nullptr, operands, 2);
    return operands[2];
  }

  static std::tuple<Tensor, Tensor> backward(Tensor grad, Tensor gate, Tensor up) {
    Tensor grad_gate = allocate_like(gate), grad_up = allocate_like(up);
    backward_into(grad, gate, up, grad_gate, grad_up);
    return {grad_gate, grad_up};
  }

  static std::tuple<Tensor, Tensor, Tensor> double_backward(Tensor v_gate, Tensor v_up, Tensor grad,
                                                            Tensor gate, Tensor up) {
    Tensor grad_grad = allocate_like(gate), grad_gate = allocate_like(gate),
           grad_up = allocate_like(up);
    double_backward_into(v_gate, v_up, grad, gate, up, grad_grad, grad_gate, grad_up);
    return {grad_grad, grad_gate, grad_up};
  }

  static Tensor packed(Tensor x, int64_t dim, bool gate_first) {
    auto [gate, up] = halves(x, dim, gate_first);
    return forward(gate, up);
  }

  static Tensor packed_backward(Tensor grad, Tensor x, int64_t dim, bool gate_first) {
    Tensor grad_x = allocate_like(x);
    auto [gate, up] = halves(x, dim, gate_first);
    auto [grad_gate, grad_up] = halves(grad_x, dim, gate_first);
    backward_into(grad, gate, up, grad_gate, grad_up);
    return grad_x;
  }

  static std::tuple<Tensor, Tensor> packed_double_backward(Tensor v, Tensor grad, Tensor x, int64_t dim,
                                                           bool gate_first) {
    check_alike(Kernels::name, {&x, &v});
    Tensor grad_x = allocate_like(x);
    auto [v_gate, v_up] = halves(v, dim, gate_first);
    auto [gate, up] = halves(x, dim, gate_first);
    auto [grad_gate, grad_up] = halves(grad_x, dim, gate_first);
    Tensor grad_grad = allocate_like(gate);
    double_backward_into(v_gate, v_up, grad, gate, up, grad_grad, grad_gate, grad_up);
    return {grad_grad, grad_x};
  }

  template <class Library>
  static void implement(Library& m) {
    const std::string name = Kernels::name;
    m.impl((name + "_mul").c_str(), TORCH_BOX((&GatedOps::forward)));
    m.impl((name + "_mul_backward").c_str(), TORCH_BOX((&GatedOps::backward)));
    m.impl((name + "_mul_double_backward").c_str(), TORCH_BOX((&GatedOps::double_backward)));
    m.impl((name + "_glu").c_str(), TORCH_BOX((&GatedOps::packed)));
    m.impl((name + "_glu_backward").c_str(), TORCH_BOX((&GatedOps::packed_backward)));
    m.impl((name + "_glu_double_backward").c_str(), TORCH_BOX((&GatedOps::packed_double_backward)));
  }

 private:
  static void backward_into(const Tensor& grad, const Tensor& gate, const Tensor& up,
                            const Tensor& grad_gate, const Tensor& grad_up) {
    check_alike(Kernels::name, {&gate, &up, &grad});
    std::array operands = {grad, gate, up, grad_gate, grad_up};
    pointwise(Kernels::backward(gate.scalar_type()), nullptr, operands, 3);
  }

  static void double_backward_into(const Tensor& v_gate, const Tensor& v_up, const Tensor& grad,
                                   const Tensor& gate, const Tensor& up, const Tensor& grad_grad,
                                   const Tensor& grad_gate, const Tensor& grad_up) {
    check_alike(Kernels::name, {&gate, &up, &grad, &v_gate, &v_up});
    std::array operands = {v_gate, v_up, grad, gate, up, grad_grad, grad_gate, grad_up};
    pointwise(Kernels::double_backward(gate.scalar_type()), nullptr, operands, 5);
  }

  // The two halves of x along dim (>= 0), as views.
  static std::pair<Tensor, Tensor> halves(Tensor x, int64_t dim, bool gate_first) {
    STD_TORCH_CHECK(dim >= 0 && dim < x.dim() && x.size(dim) % 2 == 0, "fastact::", Kernels::name,
                    "_glu: expected a dimension of even size");
    const int64_t half = x.size(dim) / 2;
    Tensor first = torch::stable::narrow(x, dim, 0, half);
    Tensor second = torch::stable::narrow(x, dim, half, half);
    return gate_first ? std::pair(first, second) : std::pair(second, first);
  }
};

}  // namespace fastact
