// The ops of cross entropy.
#pragma once

#include <torch/csrc/stable/library.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "dtype.h"
#include "ops.h"
#include "rows.h"
#include "scalars.h"

namespace fastact {

template <class Device>
class CrossEntropyOps {
  using Maybe = std::optional<Tensor>;
  static constexpr int64_t none = int64_t(Reduction::none), mean = int64_t(Reduction::mean);

 public:
  // loss; lse and entropy of each row, empty unless asked for; what backward needs: the rows' sums,
  // and the sum of the weights.
  using Results = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
  static Results forward(Tensor logits, Tensor target, Maybe weight, int64_t reduction,
                         int64_t ignore_index, double label_smoothing, double z_loss, double softcap,
                         bool full_precision, bool with_lse, bool with_entropy) {
    Problem p(logits, target, weight, ignore_index, label_smoothing, z_loss, softcap, with_entropy);
    return p.results(reduction, full_precision, with_lse, with_entropy);
  }

  // The same, and the gradient of the logits for that of the loss which is expected.
  static std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> with_grad(
      Tensor expected, Tensor logits, Tensor target, Maybe weight, int64_t reduction,
      int64_t ignore_index, double label_smoothing, double z_loss, double softcap, bool full_precision,
      bool with_lse, bool with_entropy) {
    check_one_number(logits, expected);
    Problem p(logits, target, weight, ignore_index, label_smoothing, z_loss, softcap, with_entropy);
    Tensor grad = allocate_like(p.logits);
    p.args.grad_logits = grad.data_ptr();
    p.args.grad_loss = p.keep(converted(expected, p.compute));
    p.args.reduced = true;
    if (reduction == mean) p.args.total = p.total_weight();
    return std::tuple_cat(p.results(reduction, full_precision, with_lse, with_entropy),
                          std::tuple(grad));
  }

  // Backward of it: grad is right already, or computed anew.
  static void correct_grad_(Tensor grad, Tensor expected, Maybe grad_loss, Maybe grad_lse,
                            Maybe grad_entropy, Tensor logits, Tensor target, Maybe weight,
                            Tensor stats, Tensor total, int64_t reduction, int64_t ignore_index,
                            double label_smoothing, double z_loss, double softcap, bool, bool,
                            bool with_entropy) {
    check_one_number(logits, expected);
    const bool by_loss_alone = grad_loss && !grad_lse && !grad_entropy;
    if (by_loss_alone && Device::is_as_expected(*grad_loss, expected)) return;
    check_alike("cross_entropy_correct_grad_", {&logits, &grad});
    Problem p(logits, target, weight, ignore_index, label_smoothing, z_loss, softcap, with_entropy);
    STD_TORCH_CHECK(have_one_layout(grad, p.logits),
                    "fastact::cross_entropy_correct_grad_: expected the gradient of its forward");
    p.use_stats(stats);
    p.use_grads(grad_loss, grad_lse, grad_entropy, total, reduction);
    if (by_loss_alone) p.args.expected = p.keep(converted(expected, p.compute));
    p.backward(grad);
  }

  static Tensor backward(Maybe grad_loss, Maybe grad_lse, Maybe grad_entropy, Tensor logits,
                         Tensor target, Maybe weight, Tensor stats, Tensor total, int64_t reduction,
                         int64_t ignore_index, double label_smoothing, double z_loss, double softcap,
                         bool, bool, bool with_entropy) {
    Problem p(logits, target, weight, ignore_index, label_smoothing, z_loss, softcap, with_entropy);
    p.use_stats(stats);
    p.use_grads(grad_loss, grad_lse, grad_entropy, total, reduction);
    return p.backward(allocate_like(p.logits));
  }

  // Writes the gradient over the logits.
  static void backward_(Maybe grad_loss, Maybe grad_lse, Maybe grad_entropy, Tensor logits,
                        Tensor target, Maybe weight, Tensor stats, Tensor total, int64_t reduction,
                        int64_t ignore_index, double label_smoothing, double z_loss, double softcap,
                        bool, bool, bool with_entropy) {
    Problem p(logits, target, weight, ignore_index, label_smoothing, z_loss, softcap, with_entropy);
    p.use_stats(stats);
    p.use_grads(grad_loss, grad_lse, grad_entropy, total, reduction);
    p.backward(p.logits);
    if (p.logits.data_ptr() != logits.data_ptr()) torch::stable::copy_(logits, p.logits);
  }

  // By the three gradients, and by the logits; the latter is empty where no gradient was given.
  static std::tuple<Tensor, Tensor, Tensor, Tensor> double_backward(
      Tensor v, Maybe grad_loss, Maybe grad_lse, Maybe grad_entropy, Tensor logits, Tensor target,
      Maybe weight, Tensor stats, Tensor total, int64_t reduction, int64_t ignore_index,
      double label_smoothing, double z_loss, double softcap, bool full_precision, bool with_lse,
      bool with_entropy) {
    check_alike("cross_entropy", {&logits, &v});
    Problem p(logits, target, weight, ignore_index, label_smoothing, z_loss, softcap, with_entropy);
    const std::vector<int64_t> each = p.row_sizes(), nothing = {0};
    v = laid_out_like(p.logits, v);
    p.args.v = v.data_ptr();
    p.use_stats(stats);
    p.use_grads(grad_loss, grad_lse, grad_entropy, total, reduction);
    Tensor by_loss = allocate_small(logits, each, p.compute);
    Tensor by_lse = allocate_small(logits, with_lse ? each : nothing, p.compute);
    Tensor by_entropy = allocate_small(logits, with_entropy ? each : nothing, p.compute);
    p.args.grad_grad_loss = by_loss.data_ptr();
    if (with_lse) p.args.grad_grad_lse = by_lse.data_ptr();
    if (with_entropy) p.args.grad_grad_entropy = by_entropy.data_ptr();
    const bool any = grad_loss || grad_lse || grad_entropy;
    Tensor grad = any ? allocate_like(p.logits) : torch::stable::new_empty(logits, {0});
    if (any) p.args.grad_logits = grad.data_ptr();
    auto sums = p.sums();
    p.run(p.kernels().double_backward);

    if (reduction != none) {
      by_loss = p.reduced_loss(full_precision);
      sums.finish(reduction == mean, by_loss, nullptr);
    }
    if (!full_precision) by_loss = converted(by_loss, logits.scalar_type());
    return {by_loss, by_lse, by_entropy, grad};
  }

  // The same of log-probabilities: loss, and the sum of the weights.
  static std::tuple<Tensor, Tensor> nll_forward(Tensor x, Tensor target, Maybe weight,
                                                int64_t reduction, int64_t ignore_index) {
    Problem p(x, target, weight, ignore_index, 0, 0, 0, false);
    p.args.normalized = true;
    Tensor total;
    return {p.loss(reduction, false, total), total};
  }

  static Tensor nll_backward(Tensor grad_loss, Tensor x, Tensor target, Maybe weight, Tensor total,
                             int64_t reduction, int64_t ignore_index) {
    Problem p(x, target, weight, ignore_index, 0, 0, 0, false);
    p.args.normalized = true;
    p.use_grads(grad_loss, {}, {}, total, reduction);
    return p.backward(allocate_like(p.logits));
  }

  static Tensor nll_double_backward(Tensor v, Tensor, Tensor, Tensor target, Maybe weight, Tensor,
                                    int64_t reduction, int64_t ignore_index) {
    return std::get<0>(nll_forward(v, target, weight, reduction, ignore_index));
  }

  template <class Library>
  static void implement(Library& m) {
    m.impl("nll_loss", TORCH_BOX((&CrossEntropyOps::nll_forward)));
    m.impl("nll_loss_backward", TORCH_BOX((&CrossEntropyOps::nll_backward)));
    m.impl("nll_loss_double_backward", TORCH_BOX((&CrossEntropyOps::nll_double_backward)));
    m.impl("cross_entropy", TORCH_BOX((&CrossEntropyOps::forward)));
    m.impl("cross_entropy_backward", TORCH_BOX((&CrossEntropyOps::backward)));
    m.impl("cross_entropy_backward_", TORCH_BOX((&CrossEntropyOps::backward_)));
    m.impl("cross_entropy_with_grad", TORCH_BOX((&CrossEntropyOps::with_grad)));
    m.impl("cross_entropy_correct_grad_", TORCH_BOX((&CrossEntropyOps::correct_grad_)));
    m.impl("cross_entropy_double_backward", TORCH_BOX((&CrossEntropyOps::double_backward)));
  }

 private:
  static void check_one_number(const Tensor& logits, const Tensor& t) {
    check_device("cross_entropy", logits, t);
    STD_TORCH_CHECK(t.numel() == 1, "fastact::cross_entropy: expected one number for all rows");
  }

  // The operands, checked and in one layout; what the kernels point at stays alive in here.
  struct Problem {
    Tensor logits, target;
    ScalarType compute;
    int64_t planes;
    cpu::CrossEntropyRows args{};
    std::vector<Tensor> alive;

    Problem(const Tensor& x, const Tensor& t, const Maybe& weight, int64_t ignore_index,
            double label_smoothing, double z_loss, double softcap, bool with_entropy)
        : logits(x), target(t), class_dim_(x.dim() == 1 ? 0 : 1) {
      STD_TORCH_CHECK(x.dim() > 0, "fastact::cross_entropy: expected logits with a class dimension");
      compute = compute_type(x.scalar_type());
      if (!x.is_contiguous() && !is_contiguous_with_last(x, class_dim_))
        logits = torch::stable::contiguous(x);
      if (logits.is_contiguous()) {
        args.rows = contiguous_rows(logits, class_dim_);
      } else {
        const int64_t classes = x.size(class_dim_);
        args.rows = cpu::Rows::dense(classes ? x.numel() / classes : 0, classes, 1);
      }
      args.logits = logits.data_ptr();
      if (t.scalar_type() == ScalarType::Long) {
        check_device("cross_entropy", x, t);
        STD_TORCH_CHECK(t.numel() == args.rows.count(),
                        "fastact::cross_entropy: expected a target for "
                        "each row of logits");
        target = torch::stable::contiguous(t);
        args.target = static_cast<const int64_t*>(target.data_ptr());
      } else {
        check_alike("cross_entropy", {&x, &t});
        target = laid_out_like(logits, t);
        args.probabilities = target.data_ptr();
      }
      if (weight) {
        check_device("cross_entropy", x, *weight);
        STD_TORCH_CHECK(weight->dim() == 1 && weight->numel() == args.rows.classes,
                        "fastact::cross_entropy: expected a weight for each class");
        args.weight = keep(converted(*weight, compute));
      }
      args.ignore_index = ignore_index;
      args.label_smoothing = label_smoothing;
      args.z_loss = z_loss;
      args.softcap = softcap;
      has_mass_ = args.probabilities != nullptr || label_smoothing > 0;
      has_mean_ = with_entropy;
      planes = 2 + has_mass_ + has_mean_;
      if (args.target) Device::check_targets(args);
    }
    Problem(const Problem&) = delete;

    std::vector<int64_t> row_sizes() const {
      std::vector<int64_t> sizes;
      for (int64_t d = 0; d < logits.dim(); ++d)
        if (d != class_dim_) sizes.push_back(logits.size(d));
      return sizes;
    }

    void use_stats(const Tensor& stats) {
      const int64_t bytes = args.rows.count() * int64_t(stats.element_size());
      char* plane = static_cast<char*>(stats.data_ptr());
      const auto next = [&] { return std::exchange(plane, plane + bytes); };
      check_device("cross_entropy_backward", logits, stats);
      STD_TORCH_CHECK(stats.is_contiguous() && stats.scalar_type() == compute &&
                          stats.numel() == planes * args.rows.count(),
                      "fastact::cross_entropy_backward: expected the stats of its forward");
      args.max = next();
      args.rest = next();
      if (has_mass_) args.mass = next();
      if (has_mean_) args.mean = next();
    }

    // Of an output that was not asked for, and is empty, torch.compile hands in an empty gradient.
    bool is_given(const Maybe& grad) const {
      return grad && (grad->numel() > 0 || args.rows.count() == 0);
    }

    void use_grads(const Maybe& loss, const Maybe& lse, const Maybe& entropy, const Tensor& total,
                   int64_t reduction) {
      const int64_t rows = args.rows.count();
      const auto use = [&](const Maybe& grad, int64_t numel) -> void* {
        if (!is_given(grad)) return nullptr;
        check_device("cross_entropy_backward", logits, *grad);
        STD_TORCH_CHECK(grad->numel() == numel,
                        "fastact::cross_entropy_backward: expected gradients of the outputs' shapes");
        return keep(converted(*grad, compute));
      };
      check_device("cross_entropy_backward", logits, total);
      args.grad_loss = use(loss, reduction == none ? rows : 1);
      if (reduction == mean) args.total = total.data_ptr();
      args.grad_lse = use(lse, rows);
      args.grad_entropy = use(entropy, rows);
      args.reduced = reduction != none;
    }

    // Writes the gradient of the logits.
    Tensor backward(const Tensor& grad) {
      args.grad_logits = grad.data_ptr();
      run(kernels().backward);
      return grad;
    }

    void* keep(const Tensor& t) {
      alive.push_back(t);
      return t.data_ptr();
    }

    // The sum of the weights, which a mean is divided by, before anything has been read of the logits.
    const void* total_weight() {
      Tensor total = allocate_small(logits, {}, compute), unused = allocate_small(logits, {}, compute);
      auto pairs = sums();
      if (args.rows.count() > 0) Device::weigh(args, logits);
      pairs.finish(false, unused, &total);
      return keep(total);
    }

    Results results(int64_t reduction, bool full_precision, bool with_lse, bool with_entropy) {
      const std::vector<int64_t> each = row_sizes(), nothing = {0};
      Tensor stats = allocate_small(logits, std::array{planes, args.rows.count()}, compute);
      Tensor lse = allocate_small(logits, with_lse ? each : nothing, compute);
      Tensor entropy = allocate_small(logits, with_entropy ? each : nothing, compute);
      use_stats(stats);
      if (with_lse) args.lse = lse.data_ptr();
      if (with_entropy) args.entropy = entropy.data_ptr();
      Tensor total;
      Tensor loss_of_rows = loss(reduction, full_precision, total);
      return {loss_of_rows, lse, entropy, stats, total};
    }

    // Runs the forward kernel, and reduces.
    Tensor loss(int64_t reduction, bool full_precision, Tensor& total) {
      const bool reduced = reduction != none;
      Tensor loss =
          reduced ? reduced_loss(full_precision) : allocate_small(logits, row_sizes(), compute);
      if (!reduced) args.loss = loss.data_ptr();
      total = allocate_small(logits, {}, compute);
      auto pairs = sums();
      run(kernels().forward);
      Tensor unused = reduced ? loss : allocate_small(logits, {}, compute);
      pairs.finish(reduction == mean, unused, &total);
      return full_precision ? loss : converted(loss, logits.scalar_type());
    }

    // Where a sum over rows goes.
    Tensor reduced_loss(bool full_precision) const {
      const ScalarType storage = logits.scalar_type();
      return allocate_small(logits, {}, full_precision ? compute : Device::reduced_type(storage));
    }

    // Where the kernels put what is added up over rows.
    typename Device::Sums sums() {
      const int64_t rows = args.rows.count();
      typename Device::Sums sums(logits, rows ? Device::sums_of(args.rows, logits.scalar_type()) : 0);
      args.sums = sums.data();
      return sums;
    }

    const auto& kernels() const {
      return Device::cross_entropy(dtype_of(logits.scalar_type(), "cross_entropy"), args.rows);
    }
    template <class Kernel>
    void run(Kernel kernel) const {
      if (args.rows.count() > 0) fastact::run(kernel, args, logits);
    }

   private:
    int64_t class_dim_;
    bool has_mass_, has_mean_;
  };
};

}  // namespace fastact
