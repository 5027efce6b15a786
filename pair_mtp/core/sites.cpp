// SPDX-License-Identifier: BSD-3-Clause
#include "sites.hpp"

#include "adjoint.hpp"
#include "contraction.hpp"
#include "moments.hpp"
#include "radial.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace mtp {

// The sweeps over all neighbours of a group. Computed with lane type T, which reads the memory of the group's own lane type S.
struct ForwardAndBack {
  template <class T, class S> static MTP_FUNCTION void run(Sites<S> *group, bool all_scalars)
  {
    Sites<S> &s = *group;
    const PlanView &plan = s.plan;
    const int n_radial = plan.n_radial;
    const T *const xs = reinterpret_cast<const T *>(s.xs), *const ys = reinterpret_cast<const T *>(s.ys),
                   *const zs = reinterpret_cast<const T *>(s.zs);
    T *const moments = reinterpret_cast<T *>(s.moments), *const adjoint = reinterpret_cast<T *>(s.adjoint);
    T *const mono = reinterpret_cast<T *>(s.mono), *const bar = reinterpret_cast<T *>(s.bar);
    T *const f = reinterpret_cast<T *>(s.f), *const df = reinterpret_cast<T *>(s.df), *const angular = reinterpret_cast<T *>(s.angular);
    T *const unit = reinterpret_cast<T *>(s.unit), *const inverse = reinterpret_cast<T *>(s.inverse),
             *const distance = reinterpret_cast<T *>(s.distance);
    T *const gradients = reinterpret_cast<T *>(s.gradients);

    for (int k = 0; k < plan.n_summed; k++) moments[k] = T{};
    for (int z = 0; z < plan.n_species; z++)
      for (int n = 0; n < s.n_slots[z]; n += block) {
        const std::size_t slot = static_cast<std::size_t>(z) * s.capacity + n;
        T u[block][3];
        for (int b = 0; b < block; b++) {
          const T x = xs[slot + b], y = ys[slot + b], w = zs[slot + b];
          const T r = square_root(x * x + y * y + w * w);
          const T over_r = 1.0 / r;
          u[b][0] = x * over_r, u[b][1] = y * over_r, u[b][2] = w * over_r;
          for (int i = 0; i < 3; i++) unit[3 * (slot + b) + i] = u[b][i];
          inverse[slot + b] = over_r;
          distance[slot + b] = r;
          radial_functions(plan, s.species, z, r, f + (slot + b) * n_radial, df + (slot + b) * n_radial);
        }
        monomials(plan, u, mono);
        add_to_moments(plan, n_radial, f + slot * n_radial, mono, moments);
      }

    *reinterpret_cast<T *>(s.energies) = energy_and_adjoint(plan, moments, adjoint) + plan.species_coeffs[s.species];
    if (all_scalars) contract(plan, plan.targets, plan.n_targets, moments);

    for (int z = 0; z < plan.n_species; z++)
      for (int n = 0; n < s.n_slots[z]; n += block) {
        const std::size_t slot = static_cast<std::size_t>(z) * s.capacity + n;
        const T(*u)[3] = reinterpret_cast<const T(*)[3]>(unit + 3 * slot);
        monomials(plan, u, mono);
        pull_back(plan, n_radial, u, inverse + slot, f + slot * n_radial, df + slot * n_radial, mono, adjoint, bar, angular + slot * n_radial,
                  reinterpret_cast<T(*)[3]>(gradients + 3 * slot));
      }
  }
};

// rows[n_active]: see Sites::parameter_gradient
struct ByParameters {
  template <class T, class S> static MTP_FUNCTION void run(Sites<S> *group, double *rows)
  {
    Sites<S> &s = *group;
    const PlanView &plan = s.plan;
    const T *const distance = reinterpret_cast<const T *>(s.distance), *const angular = reinterpret_cast<const T *>(s.angular);
    T *const polynomials = reinterpret_cast<T *>(s.polynomials), *out = reinterpret_cast<T *>(rows);
    for (int z = 0; z < plan.n_species; z++, out += plan.n_radial * plan.n_chebyshev) {
      for (int k = 0; k < plan.n_radial * plan.n_chebyshev; k++) out[k] = T{};
      for (int n = 0; n < s.n_slots[z]; n++) {
        const std::size_t slot = static_cast<std::size_t>(z) * s.capacity + n;
        T smooth, dsmooth;
        cutoff_function(plan, s.species, z, distance[slot], &smooth, &dsmooth);
        chebyshev(plan, s.species, z, distance[slot], polynomials);
        for (int mu = 0; mu < plan.n_radial; mu++) {
          const T weight = angular[slot * plan.n_radial + mu] * smooth;
          for (int beta = 0; beta < plan.n_chebyshev; beta++) out[mu * plan.n_chebyshev + beta] += weight * polynomials[beta];
        }
      }
    }
    *out++ = T{} + 1.0;
    for (int alpha = 0; alpha < plan.n_scalar; alpha++) *out++ = reinterpret_cast<const T *>(s.moments)[plan.scalars[alpha]];
  }
};

namespace {

template <class Kernel, class... Arguments> void sweep(Sites<Lane8> *group, Arguments... arguments)
{
  on_best_vectors<Kernel>(group, arguments...);
}

template <class Kernel, class... Arguments> void sweep(Sites<double> *group, Arguments... arguments)
{
  Kernel::template run<double>(group, arguments...);
}

}    // namespace

template <class T>
Sites<T>::Sites(const PlanView &view) : plan(view), all_fades(view.fades), cutoff_squared(view.cutoff * view.cutoff), n_slots(view.n_species)
{
  reserve(64);
}

template <class T> void Sites<T>::reserve(int most_neighbours)
{
  if (capacity >= static_cast<std::size_t>(most_neighbours) + block) return;
  capacity = (static_cast<std::size_t>(most_neighbours) * 5 / 4 + 2 * block) / block * block;
  const std::size_t n = capacity * plan.n_species;
  coordinates.require(3 * n * width);
  const std::size_t n_counts = (static_cast<std::size_t>(plan.n_species) * width + 15) / 16 * 16;
  index_store.require(n_counts + n * width);
  xs = coordinates.get();
  ys = xs + n * width;
  zs = ys + n * width;
  count = index_store.get();
  indices = count + n_counts;

  const std::size_t per_slot = 3 + 1 + 1 + 3 * static_cast<std::size_t>(plan.n_radial) + 3;
  scratch.require((n * per_slot + 2 * static_cast<std::size_t>(plan.n_moments) + block * static_cast<std::size_t>(plan.n_monomials + n_bars(plan)) +
                   plan.n_chebyshev) *
                  width);
  T *next = reinterpret_cast<T *>(scratch.get());
  const auto take = [&](std::size_t size) {
    T *const start = next;
    next += size;
    return start;
  };
  unit = take(3 * n);
  inverse = take(n);
  distance = take(n);
  f = take(n * plan.n_radial);
  df = take(n * plan.n_radial);
  angular = take(n * plan.n_radial);
  gradients = take(3 * n);
  moments = take(plan.n_moments);
  adjoint = take(plan.n_moments);
  mono = take(static_cast<std::size_t>(block) * plan.n_monomials);
  bar = take(static_cast<std::size_t>(block) * n_bars(plan));
  polynomials = take(plan.n_chebyshev);
}

template <class T> void Sites<T>::begin(int z, int most_neighbours)
{
  reserve(most_neighbours);
  species = z;
  std::fill(count, count + plan.n_species * width, 0);
  least_squared = std::numeric_limits<double>::infinity();
}

template <class T> void Sites<T>::pad()
{
  plan.fades = least_squared < plan.fade_reach * plan.fade_reach ? all_fades : nullptr;
  for (int z = 0; z < plan.n_species; z++) {
    const int *const of_lane = &count[z * width];
    const int longest = *std::max_element(of_lane, of_lane + width);
    n_slots[z] = (longest + block - 1) / block * block;
    for (int lane = 0; lane < width; lane++)
      for (int n = of_lane[lane]; n < n_slots[z]; n++) {
        const std::size_t at = (static_cast<std::size_t>(z) * capacity + n) * width + lane;
        xs[at] = plan.cutoff, ys[at] = 0, zs[at] = 0;
      }
  }
}

template <class T> void Sites<T>::evaluate(bool all_scalars)
{
  pad();
  if (least_squared <= same_place * same_place) explain();
  sweep<ForwardAndBack>(this, all_scalars);
  if (least_squared < plan.repulsion_reach * plan.repulsion_reach) add_repulsion();
  double sum = 0;
  for (double energy : energies) sum += energy;
  if (!std::isfinite(sum)) explain();
}

// Few neighbours are that close: one at a time.
template <class T> void Sites<T>::add_repulsion()
{
  for (int z = 0; z < plan.n_species; z++) {
    const Repulsion &pair = plan.repulsions[species * plan.n_species + z];
    const std::size_t first = static_cast<std::size_t>(z) * capacity;
    for (std::size_t slot = first; slot < first + n_slots[z]; slot++)
      for (int lane = 0; lane < width; lane++) {
        const double r = lane_of(distance + slot, lane);
        if (!(r < pair.window.outer)) continue;
        double value, slope;
        switched_repulsion(pair, r, &value, &slope);
        energies[lane] += value / 2;
        for (int axis = 0; axis < 3; axis++) lane_of(gradients + 3 * slot + axis, lane) += slope / 2 * lane_of(unit + 3 * slot + axis, lane);
      }
  }
}

// Finds the lane that cannot be evaluated and says why.
template <class T> void Sites<T>::explain() const
{
  for (int lane = 0; lane < width; lane++)
    for_each_neighbour(lane, [&](int, const double *r, const double *) {
      const double squared = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
      if (!(squared > same_place * same_place)) throw SiteError(lane, "two atoms are at the same place, or a position is NaN");
    });
  for (int lane = 0; lane < width; lane++)
    if (!std::isfinite(energies[lane]))
      throw SiteError(lane, "the site energy is not finite: atoms are far closer than in any training data, or coefficients are damaged");
}

template <class T> void Sites<T>::parameter_gradient(double *rows)
{
  sweep<ByParameters>(this, rows);
}

template <class T> std::size_t Sites<T>::bytes() const
{
  return coordinates.bytes() + scratch.bytes() + index_store.bytes();
}

template class Sites<double>;
template class Sites<Lane8>;

}    // namespace mtp
