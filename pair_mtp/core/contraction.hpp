// SPDX-License-Identifier: BSD-3-Clause
// The expansions m_t = m_p - m_q - m_s and the products m_t = sum c m_p m_q: forward, adjoint (D_k = dV/dm_k), and the tangents of both along a
// direction of the summed moments (forward over reverse). T is the lane type of what is computed, M that of the moments that it is computed from (M =
// double serves several directions T at one atom). `apart`: the distance between rows, 1 but where they are Plan::interleaved().
#pragma once

#include "function.hpp"
#include "plan.hpp"

namespace mtp {

template <class Array> MTP_FUNCTION void expand_one(const Expansion &x, Array m)
{
  m[x.t] = m[x.p] - m[x.q] - m[x.s];
}

template <class Array> MTP_FUNCTION void expand(const PlanView &plan, Array m)
{
  for (int i = 0; i < plan.n_expansions; i++) expand_one(plan.expansions[i], m);
}

struct Add {
  template <class T, class What> MTP_FUNCTION void operator()(T &to, const What &what) const { to += what; }
};

// add: where several threads add to the same adjoint, another than Add
template <class Array, class Adding> MTP_FUNCTION void expand_adjoint_one(const Expansion &x, Array adjoint, const Adding &add)
{
  const ElementOf<Array> of_target = adjoint[x.t];
  add(adjoint[x.p], of_target);
  add(adjoint[x.q], of_target * -1.0);
  add(adjoint[x.s], of_target * -1.0);
}

template <class Array> MTP_FUNCTION void expand_adjoint(const PlanView &plan, Array adjoint)
{
  for (int i = plan.n_expansions - 1; i >= 0; i--) expand_adjoint_one(plan.expansions[i], adjoint, Add{});
}

template <int apart = 1, class Array> MTP_FUNCTION void contract_one(const PlanView &plan, const Target &target, Array m)
{
  const Row *row = plan.rows + target.first_row, *const end = row + target.n_rows * apart;
  ElementOf<Array> sum = m[row->p] * row->c * m[row->q];
  for (row += apart; row != end; row += apart) sum += m[row->p] * row->c * m[row->q];
  m[target.t] = sum;
}

template <class Array> MTP_FUNCTION void contract(const PlanView &plan, const Target *targets, int n_targets, Array m)
{
  for (int i = 0; i < n_targets; i++) contract_one(plan, targets[i], m);
}

template <class T, class M> MTP_FUNCTION void contract_adjoint(const PlanView &plan, const Target *targets, int n_targets, const M *m, T *adjoint)
{
  for (int i = n_targets - 1; i >= 0; i--) {
    const T of_target = adjoint[targets[i].t];
    const Row *row = plan.rows + targets[i].first_row, *const end = row + targets[i].n_rows;
    for (; row != end; row++) {
      const T weighted = of_target * row->c;
      adjoint[row->p] += weighted * m[row->q];
      adjoint[row->q] += weighted * m[row->p];
    }
  }
}

// The adjoint of one moment; returns what it adds to the energy. An adjoint is collected where its moment is read, in a register: adding to the
// factors' adjoints row by row would store twice a row and wait for itself.
template <int apart = 1, class Array> MTP_FUNCTION ElementOf<Array> collect_adjoint(const PlanView &plan, const Use &use, Array m, Array adjoint)
{
  using T = ElementOf<Array>;
  const Row *row = plan.use_rows + use.first_outer, *end = row + use.n_outer * apart;
  T sum = T{};
  for (; row != end; row += apart) sum += m[row->q] * row->c;
  const T energy = (sum * 0.5 + use.c) * m[use.k];    // the outer rows are a quadratic form: half its gradient times the moments
  sum += use.c;
  row = plan.use_rows + use.first_inner;
  end = row + use.n_inner * apart;
  for (; row != end; row += apart) sum += adjoint[row->p] * row->c * m[row->q];
  adjoint[use.k] = sum;
  return energy;
}

// Energy without the species term, and the adjoints of the summed moments; m holds those on entry and what the energy needs at the end.
template <class Array> MTP_FUNCTION ElementOf<Array> energy_and_adjoint(const PlanView &plan, Array m, Array adjoint)
{
  expand(plan, m);
  contract(plan, plan.inner_targets, plan.n_inner_targets, m);
  ElementOf<Array> energy = {};
  for (int i = 0; i < plan.n_uses; i++) energy += collect_adjoint(plan, plan.uses[i], m, adjoint);
  expand_adjoint(plan, adjoint);
  return energy;
}

// Tangents of products; those of the moments that they are made of are given.
template <class T, class M> MTP_FUNCTION void contract_tangents(const PlanView &plan, const Target *targets, int n_targets, const M *m, T *dm)
{
  for (int i = 0; i < n_targets; i++) {
    const Row *row = plan.rows + targets[i].first_row, *const end = row + targets[i].n_rows;
    T sum = T{};
    for (; row != end; row++) sum += (dm[row->p] * m[row->q] + dm[row->q] * m[row->p]) * row->c;
    dm[targets[i].t] = sum;
  }
}

// The change of the energy's adjoints, from the change dm of the summed moments and of the products that others are made of.
template <class T, class M> MTP_FUNCTION void adjoint_tangents(const PlanView &plan, const M *m, const M *adjoint, const T *dm, T *dadjoint)
{
  for (int k = 0; k < plan.n_moments; k++) dadjoint[k] = T{};
  for (int i = 0; i < plan.n_outer_rows; i++) {
    const Row &row = plan.outer_rows[i];
    dadjoint[row.p] += dm[row.q] * row.c;
    dadjoint[row.q] += dm[row.p] * row.c;
  }
  for (int i = plan.n_inner_targets - 1; i >= 0; i--) {
    const T changed = dadjoint[plan.inner_targets[i].t];
    const M of_target = adjoint[plan.inner_targets[i].t];
    const Row *row = plan.rows + plan.inner_targets[i].first_row, *const end = row + plan.inner_targets[i].n_rows;
    for (; row != end; row++) {
      const T weighted_change = changed * row->c;
      const M weighted = of_target * row->c;
      dadjoint[row->p] += weighted_change * m[row->q] + dm[row->q] * weighted;
      dadjoint[row->q] += weighted_change * m[row->p] + dm[row->p] * weighted;
    }
  }
  expand_adjoint(plan, dadjoint);
}

}    // namespace mtp
