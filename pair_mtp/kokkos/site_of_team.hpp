// SPDX-License-Identifier: BSD-3-Clause
// One atom, evaluated by a team of threads of a device, or by one thread: loops and memory only; what is computed stands in the kernels of core, of
// which this is the driver for devices as Sites is that for vectors of a CPU.
//
// A team queues those listed neighbours of its atom that are within the cutoff, and takes them in chunks of its size. Forward: each thread computes
// the radial functions and the monomials of one neighbour into a column of the chunk's table; then the threads share the monomials, and each adds
// those rows to its moments. Products level by level. Backward: each thread pulls the adjoints back to one neighbour, and adds its force. A thread
// alone does the same with chunks of one. Of a neighbour nothing is kept from one sweep to the other, so memory grows with neither the neighbours nor
// the atoms: as many atoms are under way as the device has threads for, one after another.
//
// T is double, or Single: then all that belongs to one neighbour is computed in single precision, up to its force. What is summed over neighbours and
// the products of moments stay in double precision, and so do the differences of positions.
#pragma once

#include "../core/adjoint.hpp"
#include "../core/contraction.hpp"
#include "../core/moments.hpp"
#include "../core/plan.hpp"
#include "../core/radial.hpp"
#include "../core/single.hpp"

#include <Kokkos_Core.hpp>

#include <climits>
#include <cstddef>
#include <type_traits>

namespace mtp {

constexpr int threads_of_warp = 32, threads_of_team = 128;

// An array whose elements are some distance apart: neighbouring threads have neighbouring elements. fixed: that distance, where compilers are to know
// it; 0: it is told.
template <class T, int fixed> struct Strided {
  T *first;

  MTP_FUNCTION explicit Strided(T *f, std::ptrdiff_t = fixed) : first(f) {}
  MTP_FUNCTION T &operator[](int k) const { return first[k * fixed]; }
  MTP_FUNCTION Strided operator+(int k) const { return Strided(first + k * fixed); }
};

template <class T> struct Strided<T, 0> {
  T *first;
  std::ptrdiff_t stride;

  MTP_FUNCTION Strided(T *f, std::ptrdiff_t s) : first(f), stride(s) {}
  MTP_FUNCTION T &operator[](int k) const { return first[k * stride]; }
  MTP_FUNCTION Strided operator+(int k) const { return Strided(first + k * stride, stride); }
};

// A table in the memory of the device, element (i, k) at i stride[0] + k stride[1]
template <class Number> struct Table {
  Number *first = nullptr;
  std::size_t stride[2] = {};

  MTP_FUNCTION Number &operator()(int i, int k) const { return first[i * stride[0] + k * stride[1]]; }
};

// Atoms and their neighbour lists
struct DeviceAtoms {
  int n = 0;    // that are evaluated
  int index_mask = 0;
  const int *centres = nullptr, *n_listed = nullptr, *type = nullptr;
  const int *species_of_type = nullptr;    // negative: not to be seen
  Table<const int> listed;
  Table<const double> positions;
};

// Where the results are added. g_j = dV_i/dr_ij becomes a force -g_j on j and g_j on i, and W_ab = -r_ij,a g_b a virial, as in PairMTP::book().
struct DeviceSums {
  double unit = 1;               // of the caller's energies, in 1/eV
  bool any_virial = false;       // of all atoms, into SiteTotals
  double *energies = nullptr;    // [atom]; null: not wanted, also below
  Table<double> forces;
  double *six = nullptr, *nine = nullptr;    // [atom][6]: half on i and half on j; [atom][9]: on j
};

struct SiteTotals {
  double energy = 0, virial[6] = {};
  int coinciding = INT_MAX, not_finite = INT_MAX;    // the first atom of which this is so

  MTP_FUNCTION void operator+=(const SiteTotals &other)
  {
    energy += other.energy;
    for (int k = 0; k < 6; k++) virial[k] += other.virial[k];
    keep_first(coinciding, other.coinciding);
    keep_first(not_finite, other.not_finite);
  }
  static MTP_FUNCTION void keep_first(int &first, int other) { first = other < first ? other : first; }
};

// What a team works with: moments and their adjoints, `of_moments` apart, and the table of a chunk, which has a column for each thread and rows
// `of_rows` apart, as in Strided.
template <class T, int of_moments, int of_rows> struct SiteMemory {
  using Number = T;
  using Moments = Strided<double, of_moments>;

  Moments moments, adjoint;
  T *chunk;
  std::ptrdiff_t between_rows;
  Strided<int, of_moments> queue;    // of a team: how many there are, then their places in the list

  MTP_FUNCTION std::ptrdiff_t columns() const { return of_rows > 0 ? of_rows : between_rows; }
  MTP_FUNCTION Strided<T, of_rows> column(int row, int thread) const { return Strided<T, of_rows>(chunk + thread, between_rows) + row; }

  // The adjoints in the precision of the backward sweep. The moments are done with: a number of single precision takes the place of a moment.
  MTP_FUNCTION auto adjoints() const
  {
    if constexpr (std::is_same_v<T, double>) return adjoint;
    else return Strided<T, of_moments *static_cast<int>(sizeof(double) / sizeof(T))>(reinterpret_cast<T *>(moments.first));
  }
};

constexpr int n_sums_of_site = 10;    // force, virial, energy

// Rows of a chunk's table
struct ChunkRows {
  int f, df, angular, mono, bar, n;    // bar: for grades also the Chebyshev polynomials, when the bars are done with

  MTP_FUNCTION explicit ChunkRows(const PlanView &plan)
  {
    f = 0;
    df = f + plan.n_radial;
    angular = df + plan.n_radial;
    mono = angular + plan.n_radial;
    bar = mono + plan.n_monomials;
    n = bar + (n_bars(plan) > plan.n_chebyshev ? n_bars(plan) : plan.n_chebyshev);
    constexpr int doubles = sizeof(double) / sizeof(float);    // the threads' sums take the place of the table
    if (n < doubles * n_sums_of_site) n = doubles * n_sums_of_site;
  }
};

struct OneThread {
  static constexpr bool alone = true;

  MTP_FUNCTION int rank() const { return 0; }
  MTP_FUNCTION int size() const { return 1; }
  MTP_FUNCTION void barrier() const {}
  MTP_FUNCTION void operator()(double &to, double what) const { to += what; }    // adds
};

constexpr int rounds_of_queue = 4;     // places of the list that each thread of a team looks at to fill it
constexpr int queue_of_thread = 32;    // neighbours that one alone looks for before it acts

template <class Member> struct ThreadsOfTeam {
  static constexpr bool alone = false;
  const Member &member;

  MTP_FUNCTION int rank() const { return member.team_rank(); }
  MTP_FUNCTION int size() const { return member.team_size(); }
  MTP_FUNCTION void barrier() const { member.team_barrier(); }
  MTP_FUNCTION int capacity() const { return rounds_of_queue * member.team_size(); }
  MTP_FUNCTION void operator()(double &to, double what) const { Kokkos::atomic_add(&to, what); }
};

// Of dV_i/dtheta: the radial coefficients of an atom's pairs, and these with its species coefficient and the moment coefficients
MTP_FUNCTION int n_radial_active(const PlanView &plan)
{
  return plan.n_species * plan.n_radial * plan.n_chebyshev;
}

MTP_FUNCTION int n_active(const PlanView &plan)
{
  return n_radial_active(plan) + 1 + plan.n_scalar;
}

// One atom, by one team. graded: its dV_i/dtheta as well, in the order of Sites::parameter_gradient.
template <bool graded, class Team, class Memory> class SiteOfTeam {
 public:
  MTP_FUNCTION SiteOfTeam(const Team &t, const PlanView &p, const DeviceAtoms &a, const Memory &m) : team(t), plan(p), atoms(a), memory(m), rows(p) {}

  MTP_FUNCTION void evaluate(int i, const DeviceSums &sums, SiteTotals &totals, double *row)
  {
    centre = i;
    species = atoms.species_of_type[atoms.type[i]];
    if (species < 0) return;
    if (graded)
      for (int k = team.rank(); k < n_radial_active(plan); k += team.size()) row[k] = 0;
    sum_moments(totals);
    const double energy = contract_moments();
    if (graded) take_scalars(row);
    narrow_adjoints();
    add_forces(energy, sums, totals, row);
  }

 private:
  using T = typename Memory::Number;

  const Team &team;
  const PlanView &plan;
  const DeviceAtoms &atoms;
  const Memory &memory;
  const ChunkRows rows;
  int centre = 0, species = 0;

  struct Neighbour {
    int atom = 0, species = -1;
    bool inside = false;
    double r[3] = {};
    T u[1][3] = {}, distance = {}, inverse = {};
  };

  // Neighbour k of the list; outside: farther than the cutoff, or not this potential's. known: it was found inside before. It is not asked again, for
  // a compiler may round the distance in another way where this function is inlined once more, and a column of the chunk would stay unwritten.
  MTP_FUNCTION Neighbour neighbour(int k, bool known = false) const
  {
    Neighbour found;
    if (k >= atoms.n_listed[centre]) return found;
    found.atom = atoms.listed(centre, k) & atoms.index_mask;
    found.species = atoms.species_of_type[atoms.type[found.atom]];
    double squared = 0;
    for (int a = 0; a < 3; a++) {
      found.r[a] = atoms.positions(found.atom, a) - atoms.positions(centre, a);
      squared += found.r[a] * found.r[a];
    }
    found.inside = known || (found.species >= 0 && !(squared >= plan.cutoff * plan.cutoff));
    if (!found.inside) return found;
    found.distance = square_root(T(squared));
    found.inverse = 1.0 / found.distance;
    for (int a = 0; a < 3; a++) found.u[0][a] = T(found.r[a]) * found.inverse;
    return found;
  }

  // At the cutoff: for the columns of threads that have no neighbour
  MTP_FUNCTION Neighbour without_weight() const
  {
    Neighbour one;
    one.species = 0;
    one.distance = T(plan.cutoff);
    one.u[0][0] = T(1.0);
    return one;
  }

  MTP_FUNCTION int n_moments_of(int monomial) const { return plan.first_moment[monomial + 1] - plan.first_moment[monomial]; }

  // This thread's column: radial functions and monomials
  MTP_FUNCTION void tabulate(const Neighbour &n) const
  {
    const int thread = team.rank();
    radial_functions(plan, species, n.species, n.distance, memory.column(rows.f, thread), memory.column(rows.df, thread));
    monomials<1>(plan, n.u, memory.column(rows.mono, thread));
  }

  // action(neighbour of this thread, number of neighbours in this chunk), by all threads; those that have none are outside.
  template <class Action> MTP_FUNCTION void for_each_chunk(const Action &action) const
  {
    const int n = atoms.n_listed[centre];
    if constexpr (Team::alone) {
      for (int k = 0; k < n;) {    // threads of a warp look for theirs together, and then act together
        int n_queued = 0;
        MTP_ROLLED
        for (; k < n && n_queued < queue_of_thread; k++)
          if (neighbour(k).inside) memory.queue[n_queued++] = k;
        MTP_ROLLED
        for (int q = 0; q < n_queued; q++) action(neighbour(memory.queue[q], true), 1);
      }
    } else {
      for (int scanned = 0; scanned < n; scanned += team.capacity()) {
        fill_queue(scanned);
        const int n_queued = memory.queue[0];
        for (int first = 0; first < n_queued; first += team.size()) {
          const int k = first + team.rank();
          action(k < n_queued ? neighbour(memory.queue[1 + k], true) : Neighbour(), n_queued - first < team.size() ? n_queued - first : team.size());
        }
      }
    }
  }

  // With neighbours within the cutoff, in any order, from as many places of the list as it can hold
  MTP_FUNCTION void fill_queue(int scanned) const
  {
    team.barrier();
    if (team.rank() == 0) memory.queue[0] = 0;
    team.barrier();
    for (int round = 0; round < rounds_of_queue; round++) {
      const int k = scanned + round * team.size() + team.rank();
      if (neighbour(k).inside) memory.queue[1 + Kokkos::atomic_fetch_add(&memory.queue[0], 1)] = k;
    }
    team.barrier();
  }

  MTP_FUNCTION void sum_moments(SiteTotals &totals) const
  {
    for (int k = team.rank(); k < plan.n_summed; k += team.size()) memory.moments[k] = 0;
    for_each_chunk([&](const Neighbour &mine, int n_columns) {
      if (mine.inside && !(widened(mine.distance) > same_place)) SiteTotals::keep_first(totals.coinciding, centre);
      tabulate(mine.inside ? mine : without_weight());
      if constexpr (Team::alone) {
        add_to_moments<1>(plan, plan.n_radial, memory.column(rows.f, 0), memory.column(rows.mono, 0), memory.moments);
        return;
      }
      const int at_once = neighbours_at_once, n_padded = (n_columns + at_once - 1) / at_once * at_once;
      team.barrier();
      for (int first = 0; first < plan.n_monomials; first += team.size()) {
        const int k = first + team.rank();
        if (k < plan.n_monomials)
          add_monomial(n_moments_of(k), n_moments_of(first), n_padded < team.size() ? n_padded : team.size(), memory.columns(),
                       memory.column(rows.f, 0).first, memory.column(rows.mono + k, 0).first, memory.moments + plan.first_moment[k]);
      }
      team.barrier();
    });
  }

  template <class Action> MTP_FUNCTION void for_level(const Levels &levels, int level, const Action &action) const
  {
    for (int k = levels.first[level] + team.rank(); k < levels.first[level + 1]; k += team.size()) action(k);
    team.barrier();
  }

  // From the summed moments to their adjoints; returns this thread's share of the energy.
  MTP_FUNCTION double contract_moments() const
  {
    const typename Memory::Moments m = memory.moments, adjoint = memory.adjoint;
    const PlanView &p = plan;
    team.barrier();
    for (int l = 0; l < p.expansion_levels.n; l++) for_level(p.expansion_levels, l, [&](int k) { expand_one(p.expansions[k], m); });
    for (int l = 0; l < p.inner_target_levels.n; l++)
      for_level(p.inner_target_levels, l, [&](int k) { contract_one<threads_of_warp>(p, p.inner_targets[k], m); });
    double energy = team.rank() == 0 ? p.species_coeffs[species] : 0.0;
    for (int l = 0; l < p.use_levels.n; l++)
      for_level(p.use_levels, l, [&](int k) { energy += collect_adjoint<threads_of_warp>(p, p.uses[k], m, adjoint); });
    for (int l = p.expansion_levels.n - 1; l >= 0; l--)
      for_level(p.expansion_levels, l, [&](int k) { expand_adjoint_one(p.expansions[k], adjoint, team); });
    return energy;
  }

  // The basis functions one by one
  MTP_FUNCTION void take_scalars(double *row) const
  {
    const PlanView &p = plan;
    const typename Memory::Moments m = memory.moments;
    for (int l = 0; l < p.target_levels.n; l++) for_level(p.target_levels, l, [&](int k) { contract_one<threads_of_warp>(p, p.targets[k], m); });
    double *const scalars = row + n_radial_active(p) + 1;
    if (team.rank() == 0) scalars[-1] = 1;
    for (int alpha = team.rank(); alpha < p.n_scalar; alpha += team.size()) scalars[alpha] = m[p.scalars[alpha]];
  }

  MTP_FUNCTION void narrow_adjoints() const
  {
    if constexpr (!std::is_same_v<T, double>) {
      const auto narrow = memory.adjoints();
      for (int k = team.rank(); k < plan.n_summed; k += team.size()) narrow[k] = T(memory.adjoint[k]);
      team.barrier();
    }
  }

  MTP_FUNCTION void add_forces(double energy, const DeviceSums &sums, SiteTotals &totals, double *row) const
  {
    const int thread = team.rank();
    double of_centre[n_sums_of_site] = {};    // force, half of the virial, energy
    for_each_chunk([&](const Neighbour &one, int n_columns) {
      if (one.inside) {
        tabulate(one);
        T narrow[1][3];
        pull_back<1>(plan, plan.n_radial, one.u, &one.inverse, memory.column(rows.f, thread), memory.column(rows.df, thread),
                     memory.column(rows.mono, thread), memory.adjoints(), memory.column(rows.bar, thread), memory.column(rows.angular, thread),
                     narrow);
        double g[3] = {widened(narrow[0][0]), widened(narrow[0][1]), widened(narrow[0][2])};
        energy += add_repulsion(one, g);
        book(one, g, sums, of_centre);
        if (graded) weigh(one);
      }
      if (graded) {
        team.barrier();
        add_to_row(n_columns, row);
        team.barrier();
      }
    });
    of_centre[9] = energy;
    add_up(of_centre, [&](int k, double sum) { book_centre(k, sum, sums, totals); });
  }

  // Into this thread's column: of how much weight the neighbour's Chebyshev polynomials are in dV_i/dc_(mu beta), and what they are; its species
  MTP_FUNCTION void weigh(const Neighbour &n) const
  {
    const int thread = team.rank();
    const auto weights = memory.column(rows.angular, thread);
    memory.column(rows.f, thread)[0] = T(static_cast<double>(n.species));
    T smooth, dsmooth;
    cutoff_function(plan, species, n.species, n.distance, &smooth, &dsmooth);
    chebyshev(plan, species, n.species, n.distance, memory.column(rows.bar, thread));
    for (int mu = 0; mu < plan.n_radial; mu++) weights[mu] = weights[mu] * smooth;
  }

  MTP_FUNCTION void add_to_row(int n_columns, double *row) const
  {
    const int of_species = plan.n_radial * plan.n_chebyshev;
    for (int k = team.rank(); k < n_radial_active(plan); k += team.size()) {
      const int z = k / of_species, mu = k % of_species / plan.n_chebyshev, beta = k % plan.n_chebyshev;
      double sum = 0;
      for (int column = 0; column < n_columns; column++)
        if (static_cast<int>(widened(memory.column(rows.f, column)[0])) == z)
          sum += widened(memory.column(rows.angular + mu, column)[0] * memory.column(rows.bar + beta, column)[0]);
      row[k] += sum;
    }
  }

  // take(k, sum over the threads) of each, by some thread
  template <class Take> MTP_FUNCTION void add_up(const double *of_thread, const Take &take) const
  {
    if constexpr (Team::alone)
      for (int k = 0; k < n_sums_of_site; k++) take(k, of_thread[k]);
    else {
      double *const sums = reinterpret_cast<double *>(memory.chunk);
      team.barrier();
      for (int k = 0; k < n_sums_of_site; k++) sums[k * memory.columns() + team.rank()] = of_thread[k];
      team.barrier();
      for (int k = team.rank(); k < n_sums_of_site; k += team.size()) {
        double sum = 0;
        for (int column = 0; column < team.size(); column++) sum += sums[k * memory.columns() + column];
        take(k, sum);
      }
      team.barrier();
    }
  }

  MTP_FUNCTION void book_centre(int k, double sum, const DeviceSums &sums, SiteTotals &totals) const
  {
    if (k < 3) Kokkos::atomic_add(&sums.forces(centre, k), sum);
    else if (k < 9) {
      for (int a = 0; a < 6; a++) totals.virial[a] += a == k - 3 ? 2 * sum : 0.0;    // no index: totals stay in registers
      if (sums.six) Kokkos::atomic_add(&sums.six[6 * static_cast<std::size_t>(centre) + k - 3], sum);
    } else {
      if (!(sum - sum == 0.0)) SiteTotals::keep_first(totals.not_finite, centre);
      totals.energy += sums.unit * sum;
      if (sums.energies) sums.energies[centre] += sums.unit * sum;
    }
  }

  // Adds to the gradient of the neighbour; returns the energy.
  MTP_FUNCTION double add_repulsion(const Neighbour &n, double *g) const
  {
    const double distance = widened(n.distance);
    if (!(distance < plan.repulsion_reach)) return 0;
    const Repulsion &pair = plan.repulsions[species * plan.n_species + n.species];
    if (!(distance < pair.window.outer)) return 0;
    double value, slope;
    switched_repulsion(pair, distance, &value, &slope);
    for (int a = 0; a < 3; a++) g[a] += slope / 2 * widened(n.u[0][a]);
    return value / 2;
  }

  MTP_FUNCTION void book(const Neighbour &n, const double *gradient, const DeviceSums &sums, double *of_centre) const
  {
    const double g[3] = {sums.unit * gradient[0], sums.unit * gradient[1], sums.unit * gradient[2]}, *const r = n.r;
    for (int a = 0; a < 3; a++) {
      of_centre[a] += g[a];
      Kokkos::atomic_add(&sums.forces(n.atom, a), -g[a]);
    }
    if (!sums.any_virial) return;
    const double six[6] = {-r[0] * g[0],
                           -r[1] * g[1],
                           -r[2] * g[2],
                           -0.5 * (r[0] * g[1] + r[1] * g[0]),
                           -0.5 * (r[0] * g[2] + r[2] * g[0]),
                           -0.5 * (r[1] * g[2] + r[2] * g[1])};
    for (int k = 0; k < 6; k++) {
      of_centre[3 + k] += 0.5 * six[k];
      if (sums.six) Kokkos::atomic_add(&sums.six[6 * static_cast<std::size_t>(n.atom) + k], 0.5 * six[k]);
    }
    if (!sums.nine) return;
    constexpr int first[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2}, second[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};
    for (int k = 0; k < 9; k++) Kokkos::atomic_add(&sums.nine[9 * static_cast<std::size_t>(n.atom) + k], -r[first[k]] * g[second[k]]);
  }
};

}    // namespace mtp
