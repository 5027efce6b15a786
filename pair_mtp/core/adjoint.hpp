// SPDX-License-Identifier: BSD-3-Clause
// The backward sweep over `block` neighbours: from the adjoints of the summed moments to dV_i/dr_ij. The monomials are computed again; nothing of a
// neighbour is stored between the sweeps but its radial functions and its unit vector.
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
template <int n_mu, class T> struct Collector {
  T radial[block][n_mu], sum[block][n_mu];

  MTP_FUNCTION Collector(int, int stride, const T *f, T *angular)
  {
    for (int n = 0; n < block; n++)
      for (int mu = 0; mu < n_mu; mu++) {
        radial[n][mu] = f[n * stride + mu];
        sum[n][mu] = angular[n * stride + mu];
      }
  }
  // adds to the angular parts of neighbour n, and returns what its monomial adds to its bar
  MTP_FUNCTION T collect(int n, const T *adjoint, T monomial)
  {
    T value = adjoint[0] * radial[n][0];
    sum[n][0] += adjoint[0] * monomial;
    for (int mu = 1; mu < n_mu; mu++) {
      value += adjoint[mu] * radial[n][mu];
      sum[n][mu] += adjoint[mu] * monomial;
    }
    return value;
  }
  MTP_FUNCTION void store(int stride, T *angular) const
  {
    for (int n = 0; n < block; n++)
      for (int mu = 0; mu < n_mu; mu++) angular[n * stride + mu] = sum[n][mu];
  }
};

template <class T> struct Collector<0, T> {
  const int count, stride;
  const T *const f;
  T *const angular;

  MTP_FUNCTION Collector(int n_mu, int s, const T *radial, T *sums) : count(n_mu), stride(s), f(radial), angular(sums) {}
  MTP_FUNCTION T collect(int n, const T *adjoint, T monomial)
  {
    T value = T{};
    for (int mu = 0; mu < count; mu++) {
      value += adjoint[mu] * f[n * stride + mu];
      angular[n * stride + mu] += adjoint[mu] * monomial;
    }
    return value;
  }
  MTP_FUNCTION void store(int, T *) const {}
};

template <int fixed_n_mu, bool highest, class T>
MTP_FUNCTION void pull_back_degree(int n_mu, int nu, int stride, const T (*u)[3], const T *f, const T *mono, const T *adjoint, const T *above, T *bar,
                                   T *angular, T (*of_u)[3])
{
  if (fixed_n_mu > 0) n_mu = fixed_n_mu;
  Collector<fixed_n_mu, T> collector(n_mu, stride, f, angular);
  T by[block][3];
  for (int n = 0; n < block; n++)
    for (int i = 0; i < 3; i++) by[n][i] = of_u[n][i];
  const int n_monomials = monomials_of_degree(nu);
  const T *const above_y = above + block, *const above_z = above_y + (nu + 1) * block;
  // the monomials without u_z went on by u_y and u_z, the first by u_x as well
  for (int k = 0; k <= nu; k++)
    for (int n = 0; n < block; n++) {
      const T monomial = mono[k * block + n];
      T value = collector.collect(n, adjoint + k * n_mu, monomial);
      if (!highest) {
        const T y = above_y[k * block + n], z = above_z[k * block + n];
        value += y * u[n][1] + z * u[n][2];
        by[n][1] += y * monomial;
        by[n][2] += z * monomial;
        if (k == 0) {
          value += above[n] * u[n][0];
          by[n][0] += above[n] * monomial;
        }
      }
      bar[k * block + n] = value;
    }
  for (int k = nu + 1; k < n_monomials; k++)
    for (int n = 0; n < block; n++) bar[k * block + n] = collector.collect(n, adjoint + k * n_mu, mono[k * block + n]);
  for (int n = 0; n < block; n++)
    for (int i = 0; i < 3; i++) of_u[n][i] = by[n][i];
  collector.store(stride, angular);
}

template <bool highest, class T>
MTP_FUNCTION void pull_back_any_degree(int n_mu, int nu, int stride, const T (*u)[3], const T *f, const T *mono, const T *adjoint, const T *above,
                                       T *bar, T *angular, T (*of_u)[3])
{
  switch (n_mu) {
  case 1: pull_back_degree<1, highest>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u); break;
  case 2: pull_back_degree<2, highest>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u); break;
  case 3: pull_back_degree<3, highest>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u); break;
  case 4: pull_back_degree<4, highest>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u); break;
  case 5: pull_back_degree<5, highest>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u); break;
  case 6: pull_back_degree<6, highest>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u); break;
  default: pull_back_degree<0, highest>(n_mu, nu, stride, u, f, mono, adjoint, above, bar, angular, of_u);
  }
}

// gradient[block][3] = dV_i/dr_ij and angular[block][stride]. bar is scratch like mono.
template <class T>
MTP_FUNCTION void pull_back(const PlanView &plan, int stride, const T (*u)[3], const T *inverse_r, const T *f, const T *df, const T *mono,
                            const T *adjoint, T *bar, T *angular, T (*gradient)[3])
{
  for (int k = 0; k < stride * block; k++) angular[k] = T{};
  T of_u[block][3];
  for (int n = 0; n < block; n++)
    for (int i = 0; i < 3; i++) of_u[n][i] = T{};
  const int highest = plan.highest_degree;
  int first = plan.n_monomials - monomials_of_degree(highest);
  adjoint += plan.n_summed - monomials_of_degree(highest) * plan.n_mu[highest];
  pull_back_any_degree<true>(plan.n_mu[highest], highest, stride, u, f, mono + first * block, adjoint, bar, bar + first * block, angular, of_u);
  for (int nu = highest - 1; nu >= 0; nu--) {
    const T *const above = bar + first * block;
    first -= monomials_of_degree(nu);
    adjoint -= monomials_of_degree(nu) * plan.n_mu[nu];
    pull_back_any_degree<false>(plan.n_mu[nu], nu, stride, u, f, mono + first * block, adjoint, above, bar + first * block, angular, of_u);
  }
  for (int n = 0; n < block; n++) {
    T along = df[n * stride] * angular[n * stride];
    for (int mu = 1; mu < plan.n_radial; mu++) along += df[n * stride + mu] * angular[n * stride + mu];
    const T parallel = u[n][0] * of_u[n][0] + u[n][1] * of_u[n][1] + u[n][2] * of_u[n][2];
    const T radial = along - parallel * inverse_r[n];
    for (int i = 0; i < 3; i++) gradient[n][i] = u[n][i] * radial + of_u[n][i] * inverse_r[n];
  }
}

}    // namespace mtp
