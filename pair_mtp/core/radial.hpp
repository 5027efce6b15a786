// SPDX-License-Identifier: BSD-3-Clause
// Radial functions f_mu(r) = scaling (r - cutoff)^2 sum_beta c_(mu beta) T_beta(xi) and their derivatives by r, for r <= cutoff. At the cutoff
// both are zero: a neighbour there has no weight. Where the potential has a guard, they fade towards short distances (guard.hpp).
#pragma once

#include "function.hpp"
#include "plan.hpp"
#include "single.hpp"

#include <type_traits>

namespace mtp {

// t[beta] = T_beta(xi), xi = (2 r - (min_distance + cutoff)) / (cutoff - min_distance), r being held where the pair of species fades; returns the
// derivative of the distance held by r
template <class T, class Array> MTP_FUNCTION T chebyshev(const PlanView &plan, int z_i, int z_j, T r, Array t)
{
  T held = T{} + 1.0;
  if (plan.fades) held_distance(plan.fades[z_i * plan.n_species + z_j], r, &r, &held);
  const T xi = (r * 2.0 - (plan.min_distance + plan.cutoff)) * (1 / (plan.cutoff - plan.min_distance));
  const T twice = xi + xi;
  t[0] = xi * 0.0 + 1.0;
  if (plan.n_chebyshev > 1) t[1] = xi;
  for (int beta = 2; beta < plan.n_chebyshev; beta++) t[beta] = twice * t[beta - 1] - t[beta - 2];
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

// f[mu] and df[mu] of one pair of species
template <class T, class Array, class Out>
MTP_FUNCTION void radial_functions(const PlanView &plan, int z_i, int z_j, T r, T held, Array t, Out f, Out df)
{
  T smooth, dsmooth;
  cutoff_function(plan, z_i, z_j, r, &smooth, &dsmooth);
  const T moving = smooth * held;
  const auto *c = series_of<T>(plan) + first_radial_coefficient(plan, z_i, z_j), *d = slopes_of<T>(plan) + first_radial_coefficient(plan, z_i, z_j);
  for (int mu = 0; mu < plan.n_radial; mu++, c += plan.n_chebyshev, d += plan.n_chebyshev) {
    T value = t[0] * c[0], slope = t[0] * d[0];
    for (int beta = 1; beta < plan.n_chebyshev; beta++) {
      value += t[beta] * c[beta];
      slope += t[beta] * d[beta];
    }
    f[mu] = value * smooth;
    df[mu] = slope * moving + value * dsmooth;
  }
}

}    // namespace mtp
