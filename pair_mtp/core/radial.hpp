// SPDX-License-Identifier: BSD-3-Clause
// Radial functions f_mu(r) = scaling (r - cutoff)^2 sum_beta c_(mu beta) T_beta(xi) and their derivatives by r, for r <= cutoff. At the cutoff
// both are zero: a neighbour there has no weight. Where the potential has a guard, they fade towards short distances (guard.hpp).
#pragma once

#include "function.hpp"
#include "plan.hpp"
#include "single.hpp"

#include <type_traits>

namespace mtp {

// T_0(xi), T_1(xi) ... one after another
template <class T> struct Chebyshev {
  T twice, now, before;

  MTP_FUNCTION explicit Chebyshev(T xi) : twice(xi + xi), now(xi * 0.0 + 1.0), before(xi) {}    // T_-1 = T_1
  MTP_FUNCTION T next()
  {
    const T value = now;
    now = twice * now - before;
    before = value;
    return value;
  }
};

// xi = (2 r - (min_distance + cutoff)) / (cutoff - min_distance), r being held where the pair of species fades; held: the derivative of that distance
// by r
template <class T> MTP_FUNCTION T scaled_distance(const PlanView &plan, int z_i, int z_j, T r, T *held)
{
  *held = T{} + 1.0;
  if (plan.fades) held_distance(plan.fades[z_i * plan.n_species + z_j], r, &r, held);
  return (r * 2.0 - (plan.min_distance + plan.cutoff)) * (1 / (plan.cutoff - plan.min_distance));
}

// t[beta] = T_beta(xi); returns the derivative of the distance held by r
template <class T, class Array> MTP_FUNCTION T chebyshev(const PlanView &plan, int z_i, int z_j, T r, Array t)
{
  T held;
  Chebyshev<T> polynomial(scaled_distance(plan, z_i, z_j, r, &held));
  for (int beta = 0; beta < plan.n_chebyshev; beta++) t[beta] = polynomial.next();
  return held;
}

// scaling (r - cutoff)^2, times the fade of the pair of species, and its derivative
template <class T> MTP_FUNCTION void cutoff_function(const PlanView &plan, int z_i, int z_j, T r, T *value, T *slope)
{
  const T gap = r - plan.cutoff;
  *slope = gap * (2 * plan.scaling);
  *value = gap * gap * plan.scaling;
  if (plan.fades) {
    T s, ds;
    switch_function(plan.fades[z_i * plan.n_species + z_j], r, &s, &ds);
    const T faded = s * -1.0 + 1.0;
    *slope = *slope * faded - *value * ds;
    *value = *value * faded;
  }
}

MTP_FUNCTION long first_radial_coefficient(const PlanView &plan, int z_i, int z_j)
{
  return static_cast<long>(z_i * plan.n_species + z_j) * plan.n_radial * plan.n_chebyshev;
}

// The tables of Chebyshev coefficients, in the precision of the lane type
template <class T> MTP_FUNCTION auto series_of(const PlanView &plan)
{
  if constexpr (std::is_same_v<T, Single>) return plan.single_series;
  else return plan.radial_series;
}

template <class T> MTP_FUNCTION auto slopes_of(const PlanView &plan)
{
  if constexpr (std::is_same_v<T, Single>) return plan.single_slopes;
  else return plan.radial_slopes;
}

// n_mu series at once, so that each polynomial is computed once and the sums stay in registers; c, d: [n_mu][n_chebyshev]
template <int n_mu, class T, class Coefficient, class Out>
MTP_FUNCTION void some_radial_functions(int n_chebyshev, const Coefficient *c, const Coefficient *d, Chebyshev<T> polynomial, T smooth, T moving,
                                        T dsmooth, Out f, Out df)
{
  T value[n_mu], slope[n_mu], t = polynomial.next();
  for (int mu = 0; mu < n_mu; mu++) {
    value[mu] = t * c[mu * n_chebyshev];
    slope[mu] = t * d[mu * n_chebyshev];
  }
  MTP_ROLLED
  for (int beta = 1; beta < n_chebyshev; beta++) {
    t = polynomial.next();
    for (int mu = 0; mu < n_mu; mu++) {
      value[mu] += t * c[mu * n_chebyshev + beta];
      slope[mu] += t * d[mu * n_chebyshev + beta];
    }
  }
  for (int mu = 0; mu < n_mu; mu++) {
    f[mu] = value[mu] * smooth;
    df[mu] = slope[mu] * moving + value[mu] * dsmooth;
  }
}

// f[mu] and df[mu] of one pair of species
template <class T, class Out> MTP_FUNCTION void radial_functions(const PlanView &plan, int z_i, int z_j, T r, Out f, Out df)
{
  constexpr int most = 4;
  T held, smooth, dsmooth;
  const Chebyshev<T> polynomial(scaled_distance(plan, z_i, z_j, r, &held));
  cutoff_function(plan, z_i, z_j, r, &smooth, &dsmooth);
  const T moving = smooth * held;
  const int n = plan.n_chebyshev;
  const auto *c = series_of<T>(plan) + first_radial_coefficient(plan, z_i, z_j), *d = slopes_of<T>(plan) + first_radial_coefficient(plan, z_i, z_j);
  for (int first = 0; first < plan.n_radial; first += most, c += most * n, d += most * n) {
    switch (plan.n_radial - first) {
    case 1: some_radial_functions<1>(n, c, d, polynomial, smooth, moving, dsmooth, f + first, df + first); break;
    case 2: some_radial_functions<2>(n, c, d, polynomial, smooth, moving, dsmooth, f + first, df + first); break;
    case 3: some_radial_functions<3>(n, c, d, polynomial, smooth, moving, dsmooth, f + first, df + first); break;
    default: some_radial_functions<most>(n, c, d, polynomial, smooth, moving, dsmooth, f + first, df + first);
    }
  }
}

}    // namespace mtp
