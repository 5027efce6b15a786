// SPDX-License-Identifier: BSD-3-Clause
// The backward sweep over `block` neighbours, or as many as `size` says: from the adjoints of the summed moments to dV_i/dr_ij. The monomials are
// computed again; nothing of a neighbour is stored between the sweeps but its radial functions and its unit vector.
//
// With V = sum_(mu,p) D_(mu,p) f_mu(r) u^p:  angular_mu = sum_p D_(mu,p) u^p,  dV/dr = sum_mu f'_mu angular_mu,  dV/du by reversing the recurrence of
// the monomials, and dV/dr_ij = u dV/dr + (1 - u u) dV/du / r.
#pragma once

#include "function.hpp"
#include "moments.hpp"
#include "plan.hpp"

namespace mtp {

// One degree of the sweep, from the highest down. bar[k] = dV/d(monomial k) collects what the recurrence in monomials() made of monomial k in the
// degree above (`above`: the bars there), and sum_mu D_(mu,k) f_mu; then angular_mu += D_(mu,k) mono_k, and of_u, dV/du through the recurrence.
// The radial functions of a block of neighbours and the angular parts that they collect, in registers; n_mu = 0: in memory, any number of them.
template <int n_mu, int size, class T, class Array> struct Collector {
  T radial[size][n_mu], sum[size][n_mu];

  MTP_FUNCTION Collector(int, int stride, Array f, Array angular)
  {
    for (int n = 0; n < size; n++)
      for (int mu = 0; mu < n_mu; mu++) {
        radial[n][mu] = f[n * stride + mu];
        sum[n][mu] = angular[n * stride + mu];
      }
  }
  // adds to the angular parts of neighbour n, and returns what its monomial adds to its bar
  template <class Adjoint> MTP_FUNCTION T collect(int n, const Adjoint &adjoint, T monomial)
  {
    T value = adjoint[0] * radial[n][0];
    sum[n][0] += adjoint[0] * monomial;
    for (int mu = 1; mu < n_mu; mu++) {
      value += adjoint[mu] * radial[n][mu];
      sum[n][mu] += adjoint[mu] * monomial;
    }
    return value;
  }
  MTP_FUNCTION void store(int stride, Array angular) const
  {
    for (int n = 0; n < size; n++)
      for (int mu = 0; mu < n_mu; mu++) angular[n * stride + mu] = sum[n][mu];
  }
};

template <int size, class T, class Array> struct Collector<0, size, T, Array> {
  const int count, stride;
  const Array f, angular;

  MTP_FUNCTION Collector(int n_mu, int s, Array radial, Array sums) : count(n_mu), stride(s), f(radial), angular(sums) {}
  template <class Adjoint> MTP_FUNCTION T collect(int n, const Adjoint &adjoint, T monomial)
  {
    T value = T{};
    for (int mu = 0; mu < count; mu++) {
      value += adjoint[mu] * f[n * stride + mu];
      angular[n * stride + mu] += adjoint[mu] * monomial;
    }
    return value;
  }
  MTP_FUNCTION void store(int, Array) const {}
};

template <int fixed_n_mu, bool highest, int size, class T, class Array, class Adjoint>
MTP_FUNCTION void pull_back_degree(int n_mu, int nu, int stride, const T (*u)[3], Array f, Array mono, Adjoint adjoint, Array above, Array bar,
                                   Array angular, T (*of_u)[3])
{
  if (fixed_n_mu > 0) n_mu = fixed_n_mu;
  Collector<fixed_n_mu, size, T, Array> collector(n_mu, stride, f, angular);
  T by[size][3];
  for (int n = 0; n < size; n++)
    for (int i = 0; i < 3; i++) by[n][i] = of_u[n][i];
  const int n_monomials = monomials_of_degree(nu);
  const Array above_y = above + size, above_z = above_y + (nu + 1) * size;
  // the monomials without u_z went on by u_y and u_z, the first by u_x as well
  MTP_ROLLED
  for (int k = 0; k <= nu; k++)
    for (int n = 0; n < size; n++) {
      const T monomial = mono[k * size + n];
      T value = collector.collect(n, adjoint + k * n_mu, monomial);
      if (!highest) {
        const T y = above_y[k * size + n], z = above_z[k * size + n];
        value += y * u[n][1] + z * u[n][2];
        by[n][1] += y * monomial;
        by[n][2] += z * monomial;
        if (k == 0) {
          value += above[n] * u[n][0];
          by[n][0] += above[n] * monomial;
        }
      }
      bar[k * size + n] = value;
    }
  MTP_ROLLED
  for (int k = nu + 1; k < n_monomials; k++)
    for (int n = 0; n < size; n++) bar[k * size + n] = collector.collect(n, adjoint + k * n_mu, mono[k * size + n]);
  for (int n = 0; n < size; n++)
    for (int i = 0; i < 3; i++) of_u[n][i] = by[n][i];
  collector.store(stride, angular);
}

template <bool highest, int size, class T, class Array, class Adjoint>
MTP_FUNCTION void pull_back_any_degree(int n_mu, int nu, int stride, const T (*u)[3], Array f, Array mono, Adjoint adjoint, Array above, Array bar,
                                       Array angular, T (*of_u)[3])
{
  switch (n_mu) {
  case 1: pull_back_degree<1, highest, size>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u); break;
  case 2: pull_back_degree<2, highest, size>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u); break;
  case 3: pull_back_degree<3, highest, size>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u); break;
  case 4: pull_back_degree<4, highest, size>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u); break;
  case 5: pull_back_degree<5, highest, size>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u); break;
  case 6: pull_back_degree<6, highest, size>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u); break;
  default: pull_back_degree<0, highest, size>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u);
  }
}

// Of the bars, those of two degrees are kept at a time.
MTP_FUNCTION int n_bars(const PlanView &plan)
{
  const int highest = plan.highest_degree;
  return monomials_of_degree(highest) + (highest > 0 ? monomials_of_degree(highest - 1) : 0);
}

// gradient[size][3] = dV_i/dr_ij and angular[size][stride] of `size` neighbours; bar[n_bars][size] is scratch.
template <int size = block, class T, class Array, class Adjoint>
MTP_FUNCTION void pull_back(const PlanView &plan, int stride, const T (*u)[3], const T *inverse_r, Array f, Array df, Array mono, Adjoint adjoint,
                            Array bar, Array angular, T (*gradient)[3])
{
  for (int k = 0; k < stride * size; k++) angular[k] = T{};
  T of_u[size][3];
  for (int n = 0; n < size; n++)
    for (int i = 0; i < 3; i++) of_u[n][i] = T{};
  const int highest = plan.highest_degree;
  const auto bar_of = [&](int nu) { return bar + (highest - nu) % 2 * monomials_of_degree(highest) * size; };
  int first = plan.n_monomials - monomials_of_degree(highest);
  adjoint = adjoint + (plan.n_summed - monomials_of_degree(highest) * plan.n_mu[highest]);
  pull_back_any_degree<true, size>(plan.n_mu[highest], highest, stride, u, f, mono + first * size, adjoint, bar, bar_of(highest), angular, of_u);
  for (int nu = highest - 1; nu >= 0; nu--) {
    first -= monomials_of_degree(nu);
    adjoint = adjoint + -monomials_of_degree(nu) * plan.n_mu[nu];
    pull_back_any_degree<false, size>(plan.n_mu[nu], nu, stride, u, f, mono + first * size, adjoint, bar_of(nu + 1), bar_of(nu), angular, of_u);
  }
  for (int n = 0; n < size; n++) {
    T along = df[n * stride] * angular[n * stride];
    for (int mu = 1; mu < plan.n_radial; mu++) along += df[n * stride + mu] * angular[n * stride + mu];
    const T parallel = u[n][0] * of_u[n][0] + u[n][1] * of_u[n][1] + u[n][2] * of_u[n][2];
    const T radial = along - parallel * inverse_r[n];
    for (int i = 0; i < 3; i++) gradient[n][i] = u[n][i] * radial + of_u[n][i] * inverse_r[n];
  }
}

}    // namespace mtp
