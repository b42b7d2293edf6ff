// The ops of binary cross entropy with logits.
#pragma once

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../cpu/bce.h"
#include "dtype.h"
#include "ops.h"
#include "scalars.h"

namespace fastact {

template <class Device>
class BceOps {
  using Maybe = std::optional<Tensor>;

 public:
  static Tensor forward(Tensor x, Tensor target, Maybe weight, Maybe pos_weight, int64_t reduction) {
    Problem p(x, target, weight, pos_weight, reduction);
    Tensor loss = p.result();
    p.run(p.kernels().forward);
    return p.reduced(loss);
  }

  static Tensor backward(Tensor grad, Tensor x, Tensor target, Maybe weight, Maybe pos_weight,
                         int64_t reduction) {
    Problem p(x, target, weight, pos_weight, reduction);
    p.use_grad(grad);
    Tensor grad_x = allocate_like(p.x);
    p.operands.grad_x = grad_x.data_ptr();
    p.run(p.kernels().backward);
    return grad_x;
  }

  static std::tuple<Tensor, Tensor> double_backward(Tensor v, Tensor grad, Tensor x, Tensor target,
                                                    Maybe weight, Maybe pos_weight, int64_t reduction) {
    Problem p(x, target, weight, pos_weight, reduction);
    p.use_grad(grad);
    p.operands.v = p.laid_out(v);
    Tensor by_grad = p.result(), grad_x = allocate_like(p.x);
    p.operands.grad_x = grad_x.data_ptr();
    p.run(p.kernels().double_backward);
    return {p.reduced(by_grad), grad_x};
  }

  template <class Library>
  static void implement(Library& m) {
    m.impl("bce_with_logits", TORCH_BOX((&BceOps::forward)));
    m.impl("bce_with_logits_backward", TORCH_BOX((&BceOps::backward)));
    m.impl("bce_with_logits_double_backward", TORCH_BOX((&BceOps::double_backward)));
  }

 private:
  struct Problem {
    Tensor x;
    cpu::BceOperands operands{};

    Problem(const Tensor& logits, const Tensor& target, const Maybe& weight, const Maybe& pos_weight,
            int64_t reduction)
        : x(logits), reduction_(Reduction(reduction)) {
      // A dense layout is kept; of any other a dense copy is made.
      if (!is_dense(x)) {
        Tensor dense = torch::stable::empty_like(x);
        x = torch::stable::copy_(dense, x);
      }
      operands.x = x.data_ptr();
      operands.reduced = reduction_ != Reduction::none;
      operands.target = laid_out(target);
      if (weight) operands.weight = laid_out(*weight);
      if (pos_weight) operands.pos_weight = laid_out(*pos_weight);
    }
    Problem(const Problem&) = delete;

    const void* laid_out(Tensor t) {
      check_alike("bce_with_logits", {&x, &t});
      t = laid_out_like(x, t);
      alive_.push_back(t);
      return t.data_ptr();
    }

    void use_grad(const Tensor& grad) {
      if (!operands.reduced) {
        operands.grad = laid_out(grad);
        return;
      }
      check_device("bce_with_logits", x, grad);
      STD_TORCH_CHECK(grad.numel() == 1, "fastact::bce_with_logits: expected one gradient");
      alive_.push_back(converted(grad, compute_type(x.scalar_type())));
      operands.grad = alive_.back().data_ptr();
      operands.divisor = reduction_ == Reduction::mean ? double(x.numel()) : 1.0;
    }

    // Where the loss of each element goes, or their sums.
    Tensor result() {
      if (operands.reduced) {
        sums_.emplace(x, (x.numel() + cpu::bce_part - 1) / cpu::bce_part);
        operands.sums = sums_->data();
        return torch::stable::new_empty(x, {});
      }
      Tensor loss = allocate_like(x);
      operands.loss = loss.data_ptr();
      return loss;
    }

    Tensor reduced(const Tensor& loss) const {
      if (!operands.reduced) return loss;
      Tensor sum = allocate_small(x, {}, Device::reduced_type(x.scalar_type()));
      sums_->finish(reduction_ == Reduction::mean, sum, nullptr);
      return converted(sum, x.scalar_type());
    }

    const auto& kernels() const {
      return Device::bce(dtype_of(x.scalar_type(), "bce_with_logits"), operands);
    }
    template <class Kernel>
    void run(Kernel kernel) const {
      fastact::run(kernel, operands, x.numel(), x);
    }

   private:
    Reduction reduction_;
    std::vector<Tensor> alive_;
    std::optional<typename Device::Sums> sums_;
  };
};

}  // namespace fastact
