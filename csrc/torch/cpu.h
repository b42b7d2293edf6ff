// What the ops need of the CPU: kernels, threads, and the sums of a reduced loss.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "../cpu/dispatch.h"
#include "parallel.h"
#include "scalars.h"

namespace fastact {

// Runs a kernel over rows.
template <class Rows>
void run(void (*kernel)(const Rows&, int64_t, int64_t), const Rows& arguments, const Tensor&) {
  const cpu::Rows& rows = arguments.rows;
  const int64_t per_group = std::max<int64_t>(rows.rows_per_group() * rows.classes, 1);
  parallel(rows.groups(), std::max<int64_t>(grain / per_group, 1),
           [&](int64_t begin, int64_t end) { kernel(arguments, begin, end); });
}

// Runs a kernel over n elements.
inline void run(cpu::BceKernel kernel, const cpu::BceOperands& operands, int64_t n, const Tensor&) {
  const int64_t parts = (n + cpu::bce_part - 1) / cpu::bce_part;
  parallel(parts, grain / cpu::bce_part, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      kernel(operands, part * cpu::bce_part, std::min((part + 1) * cpu::bce_part, n));
  });
}

struct Cpu {
  static const cpu::UnaryKernels& unary(int index, cpu::DType dtype) {
    return cpu::table().pointwise.unary[index][dtype];
  }
  static const cpu::GatedKernels& gated(int index, cpu::DType dtype) {
    return cpu::table().pointwise.gated[index][dtype];
  }
  static const cpu::SoftmaxKernels& softmax(cpu::DType dtype, const cpu::Rows& rows) {
    return cpu::table().softmax.at[dtype][rows.lane_is_row()];
  }
  static const cpu::SoftmaxKernels& log_softmax(cpu::DType dtype, const cpu::Rows& rows) {
    return cpu::table().log_softmax.at[dtype][rows.lane_is_row()];
  }
  static const cpu::CrossEntropyKernels& cross_entropy(cpu::DType dtype, const cpu::Rows& rows) {
    return cpu::table().cross_entropy.at[dtype][rows.lane_is_row()];
  }
  static const cpu::BceKernels& bce(cpu::DType dtype, const cpu::BceOperands& operands) {
    return cpu::table().bce(dtype, operands.reduced, operands.weight, operands.pos_weight);
  }

  // How many pairs of sums the kernels give.
  static int64_t sums_of(const cpu::Rows& rows, ScalarType) { return rows.groups(); }

  // What Sums::finish writes a loss of that dtype in.
  static ScalarType reduced_type(ScalarType storage) { return compute_type(storage); }

  // What is added up over rows: pairs of a loss and a weight.
  class Sums {
   public:
    Sums(const Tensor&, int64_t count) : pairs_(2 * count) {}
    double* data() { return pairs_.data(); }

    // The sum of the losses, or their mean, goes to loss; that of the weights to total.
    void finish(bool mean, const Tensor& loss, const Tensor* total) const {
      double loss_sum = 0, weight_sum = 0;
      for (size_t i = 0; i < pairs_.size(); i += 2) {
        loss_sum += pairs_[i];
        weight_sum += pairs_[i + 1];
      }
      set(loss, mean ? loss_sum / weight_sum : loss_sum);
      if (total) set(*total, weight_sum);
    }

   private:
    static void set(const Tensor& t, double value) {
      if (t.scalar_type() == ScalarType::Double)
        *static_cast<double*>(t.data_ptr()) = value;
      else
        *static_cast<float*>(t.data_ptr()) = float(value);
    }
    std::vector<double> pairs_;
  };

  // The sums of the weights that the kernels would give.
  static void weigh(const cpu::CrossEntropyRows& args, const Tensor& logits) {
    const cpu::Rows& rows = args.rows;
    const bool is_double = logits.scalar_type() == ScalarType::Double;
    const auto weigh_row = [&](int64_t row) -> double {
      if (!args.target) return 1;
      const int64_t target = args.target[row];
      if (target == args.ignore_index) return 0;
      if (!args.weight) return 1;
      return is_double ? static_cast<const double*>(args.weight)[target]
                       : double(static_cast<const float*>(args.weight)[target]);
    };
    parallel(rows.groups(), grain / rows.rows_per_group(), [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) {
        const cpu::Rows::Part part = rows.group(g);
        double sum = 0;
        for (int r = 0; r < part.count; ++r) sum += weigh_row(part.first_row + r);
        args.sums[2 * g] = 0;
        args.sums[2 * g + 1] = sum;
      }
    });
  }

  // Whether all of grad is as expected.
  static bool is_as_expected(const Tensor& grad, const Tensor& expected) {
    const Tensor came = converted(grad, ScalarType::Double),
                 one = converted(expected, ScalarType::Double);
    const auto* begin = static_cast<const double*>(came.data_ptr());
    const double want = *static_cast<const double*>(one.data_ptr());
    return std::all_of(begin, begin + came.numel(), [&](double value) { return value == want; });
  }

  static void check_targets(const cpu::CrossEntropyRows& args) {
    const int64_t rows = args.rows.count(), classes = args.rows.classes;
    std::atomic<int64_t> bad = rows;
    parallel(rows, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        if (uint64_t(args.target[i]) >= uint64_t(classes) && args.target[i] != args.ignore_index) {
          int64_t first = bad;
          while (i < first && !bad.compare_exchange_weak(first, i)) {
          }
          return;
        }
    });
    STD_TORCH_CHECK(bad == rows, "fastact::cross_entropy: target ", args.target[bad % (rows + !rows)],
                    " at row ", bad.load(), " is out of bounds for ", classes, " classes");
  }
};

}  // namespace fastact
