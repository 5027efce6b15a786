// SPDX-License-Identifier: BSD-3-Clause
#include "grader.hpp"

#include "function.hpp"
#include "simd.hpp"

#include <algorithm>

namespace mtp {
namespace {

constexpr int height = 8;

struct LargestElements {
  template <class T> static MTP_FUNCTION void run(int n_active, int width, const double *inverse, const double *rows, double *largest)
  {
    const T *const row = reinterpret_cast<const T *>(rows);
    T most = {}, poison = {};
    for (int first = 0; first < width; first += height) {
      T sum[height] = {};
      for (int k = 0; k < n_active; k++) {
        const T b = row[k];
        const double *factor = inverse + static_cast<long>(k) * width + first;
        for (int i = 0; i < height; i++) sum[i] += b * factor[i];
      }
      for (int i = 0; i < height; i++) {
        most = larger_size(sum[i], most);
        poison += sum[i] * 0.0;    // NaN, where it is not finite, is kept
      }
    }
    *reinterpret_cast<T *>(largest) = most + poison;
  }
};

}    // namespace

Grader::Grader(const ActiveSet &set, const PlanView &plan)
{
  const Sites<double> sites(plan);
  n_active = sites.n_active();
  width = (set.n + height - 1) / height * height;
  inverses.assign(static_cast<std::size_t>(plan.n_species) * n_active * width, 0.0);
  for (int z = 0; z < plan.n_species; z++)
    for (int k = 0; k < n_active; k++)
      for (int j = 0; j < set.n; j++)
        inverses[(static_cast<std::size_t>(z) * n_active + k) * width + j] =
            set.inverse_transposed[static_cast<std::size_t>(j) * set.n + sites.place_of_active(z, k)];
}

void Grader::grade(int species, const double *rows, double *grades) const
{
  alignas(64) double largest[pack_width];
  on_best_vectors<LargestElements>(n_active, width, &inverses[static_cast<std::size_t>(species) * n_active * width], rows, &largest[0]);
  std::copy(largest, largest + pack_width, grades);
}

}    // namespace mtp
