// The ops of softmax and log_softmax.
#pragma once

#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>

#include "ops.h"
#include "rows.h"

namespace fastact {

// Kernels answers at(dtype, rows) with the kernels.
template <class Kernels>
struct SoftmaxOps {
  static Tensor forward(Tensor x, int64_t dim) {
    check_dim(x, dim);
    x = torch::stable::contiguous(x);
    Tensor y = allocate_contiguous(x);
    run({x}, {y}, dim, [](const auto& kernels) { return kernels.forward; });
    return y;
  }

  static Tensor backward(Tensor grad, Tensor y, int64_t dim) {
    check_dim(y, dim);
    check_alike(Kernels::name, {&y, &grad});
    grad = torch::stable::contiguous(grad);
    y = torch::stable::contiguous(y);
    Tensor grad_x = allocate_contiguous(y);
    run({grad, y}, {grad_x}, dim, [](const auto& kernels) { return kernels.backward; });
    return grad_x;
  }

  static std::tuple<Tensor, Tensor> double_backward(Tensor v, Tensor grad, Tensor y, int64_t dim) {
    check_dim(y, dim);
    check_alike(Kernels::name, {&y, &grad, &v});
    v = torch::stable::contiguous(v);
    grad = torch::stable::contiguous(grad);
    y = torch::stable::contiguous(y);
    Tensor grad_grad = allocate_contiguous(y), grad_y = allocate_contiguous(y);
    run({v, grad, y}, {grad_grad, grad_y}, dim,
        [](const auto& kernels) { return kernels.double_backward; });
    return {grad_grad, grad_y};
  }

  template <class Library>
  static void implement(Library& m) {
    const std::string name = Kernels::name;
    m.impl(name.c_str(), TORCH_BOX((&SoftmaxOps::forward)));
    m.impl((name + "_backward").c_str(), TORCH_BOX((&SoftmaxOps::backward)));
    m.impl((name + "_double_backward").c_str(), TORCH_BOX((&SoftmaxOps::double_backward)));
  }

 private:
  static void check_dim(const Tensor& x, int64_t dim) {
    STD_TORCH_CHECK(dim >= 0 && dim < std::max<int64_t>(x.dim(), 1), "fastact::", Kernels::name,
                    ": expected a dimension of the tensor, counted from 0");
  }

  template <class Choose>
  static void run(std::initializer_list<Tensor> inputs, std::initializer_list<Tensor> outputs,
                  int64_t dim, const Choose& choose) {
    const Tensor& x = *inputs.begin();
    cpu::SoftmaxRows arguments{contiguous_rows(x, dim), {}, {}};
    for (size_t i = 0; i < inputs.size(); ++i) arguments.inputs[i] = inputs.begin()[i].data_ptr();
    for (size_t i = 0; i < outputs.size(); ++i) arguments.outputs[i] = outputs.begin()[i].data_ptr();
    if (x.numel() == 0) return;
    fastact::run(choose(Kernels::at(x.scalar_type(), arguments.rows)), arguments, x);
  }
};

}  // namespace fastact
