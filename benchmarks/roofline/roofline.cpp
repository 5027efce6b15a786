// SPDX-License-Identifier: BSD-3-Clause
// Counts the arithmetic of one evaluation, and measures it and the machine, for benchmarks/roofline.py.
//
//     roofline SECONDS FILE.mtp [more ...]      prints one JSON object
//
// The atoms are those of pair_speed.py: fcc 3.61 Angstrom, lists of 78 neighbours of which 42 count. Counts come from the kernels themselves, run
// with a lane type that counts. Loads and stores of packs are what the kernels' loops need with everything in registers that can be; see memory().
#include "core/sites.cpp"    // not the header: its sweeps run here with another lane type

#include "core/potential.hpp"

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <string>

namespace mtp {

// ---- a lane type that counts

struct Tally {
  double add, multiply, fused, divide, root;
  double flop() const { return add + multiply + 2 * fused + divide + root; }
  double instructions() const { return add + multiply + fused; }
} tally;

// A product that still may become part of a fused multiply-add, as compilers make it
struct Times {
  double value;
};

struct Counted {
  double value;
  Counted() = default;
  Counted(double v) : value(v) {}
  Counted(Times product) : value(product.value) { tally.multiply++; }
  Counted &operator+=(Counted other) { return value += other.value, tally.add++, *this; }
  Counted &operator-=(Counted other) { return value -= other.value, tally.add++, *this; }
  Counted &operator+=(double other) { return *this += Counted(other); }
  Counted &operator+=(Times product) { return value += product.value, tally.fused++, *this; }
  Counted &operator-=(Times product) { return value -= product.value, tally.fused++, *this; }
};

Times operator*(Counted left, Counted right)
{
  return {left.value * right.value};
}
Times operator*(Counted left, double right)
{
  return {left.value * right};
}
Times operator*(Times left, Counted right)
{
  return Counted(left) * right;
}
Times operator*(Times left, double right)
{
  return Counted(left) * right;
}
Counted operator+(Counted left, Counted right)
{
  return left += right;
}
Counted operator+(Counted left, double right)
{
  return left += right;
}
Counted operator+(Counted left, Times right)
{
  return left += right;
}
Counted operator+(Times left, Times right)
{
  return Counted(left) += right;
}
Counted operator+(Times left, double right)
{
  return tally.fused++, Counted(left.value + right);
}
Counted operator-(Counted left, Counted right)
{
  return left -= right;
}
Counted operator-(Counted left, double right)
{
  return left -= Counted(right);
}
Counted operator-(Counted left, Times right)
{
  return left -= right;
}
Counted operator-(Times left, double right)
{
  return tally.fused++, Counted(left.value - right);
}
Counted operator-(Times left, Counted right)
{
  return tally.fused++, Counted(left.value - right.value);
}
Counted operator-(Times left, Times right)
{
  return Counted(left) -= right;
}
// What a guard asks for: crystals have no neighbours that near, and no potential here has one
Counted clamped_to_unit(Counted x)
{
  return x;
}
Counted larger_size(Counted x, Counted)
{
  return x;
}
Counted operator/(double left, Counted right)
{
  return tally.divide++, Counted(left / right.value);
}
Counted square_root(Counted x)
{
  return tally.root++, Counted(std::sqrt(x.value));
}

// ---- loads and stores, of packs, for a group of eight atoms; those of coefficients, single numbers, come on top

struct Traffic {
  double loads, stores;
};

// The products, their adjoints and the expansions: every factor is read and every adjoint read and written in memory; a coefficient is a load of its
// own.
Traffic traffic_of_products(const PlanView &plan)
{
  double rows = 0;
  for (int i = 0; i < plan.n_inner_targets; i++) rows += plan.inner_targets[i].n_rows;
  Traffic t{};
  t.loads += 2.0 * rows, t.stores += plan.n_inner_targets;
  t.loads += 2 * (2.0 * rows + plan.n_outer_rows) + plan.n_uses, t.stores += plan.n_uses;
  t.loads += 7.0 * plan.n_expansions, t.stores += 4.0 * plan.n_expansions;
  return t;
}

// The sweeps over n_slots neighbours, in blocks; moments and adjoints once a block.
Traffic traffic_of_neighbours(const PlanView &plan, int n_slots)
{
  const double radial = plan.n_radial, terms = plan.n_chebyshev, monomials = plan.n_monomials;
  const double going_on = monomials - monomials_of_degree(plan.highest_degree);    // those from which higher ones are made
  double members = 0;
  for (int nu = 0; nu <= plan.highest_degree; nu++) members += plan.n_mu[nu];
  Traffic slot{}, of_block{};
  slot.loads = 3 + radial * terms, slot.stores = 5 + terms + 2 * radial;    // unit vector, Chebyshev polynomials, radial functions
  slot.loads += 2 * (3 + going_on), slot.stores += 2 * monomials;           // monomials, twice
  slot.loads += monomials + members;                                        // add_to_moments
  slot.loads += monomials + 2 * members + 2 * going_on + 4 + 2 * radial;    // pull_back
  slot.stores += members + radial + monomials + 3;
  of_block.loads = 2.0 * plan.n_summed, of_block.stores = plan.n_summed;
  return {n_slots * slot.loads + n_slots / block * of_block.loads, n_slots * slot.stores + n_slots / block * of_block.stores};
}

// ---- the machine

double seconds()
{
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// CPU seconds of one call, the best of many within `budget` seconds
template <class Action> double best_time(double budget, const Action &action)
{
  double best = 1e300;
  int n = 1;
  for (const double end = seconds() + budget; seconds() < end;) {
    const double start = seconds();
    for (int k = 0; k < n; k++) action();
    const double time = seconds() - start;
    if (time < 2e-3) n *= 2;
    else best = std::min(best, time / n);
  }
  return best;
}

// Makes the compiler believe that memory was read and written.
inline void touch(void *pointer)
{
  asm volatile("" : : "r"(pointer) : "memory");
}

constexpr int n_rounds = 1000;

struct FusedPeak {
  template <class T> static MTP_FUNCTION void run(Lane8 *memory)
  {
    constexpr int n = 12 / T::n_parts;    // as many chains as the latency asks for, all in registers
    T *const start = reinterpret_cast<T *>(memory);
    T sum[n], factor = start[0];
    for (int k = 0; k < n; k++) sum[k] = start[k];
    for (int round = 0; round < n_rounds; round++)
      for (int k = 0; k < n; k++) {
        T product = sum[k];
        product *= factor;
        product += factor;
        sum[k] = product;
      }
    for (int k = 0; k < n; k++) start[k] = sum[k];
  }
  static double packs() { return n_rounds * 12.0; }
};

struct RootPeak {
  template <class T> static MTP_FUNCTION void run(Lane8 *memory)
  {
    T *const at = reinterpret_cast<T *>(memory);
    for (int k = 0; k < 64; k++) at[k] = 1.0 / square_root(at[k]);
  }
};

struct LoadPeak {
  template <class T> static MTP_FUNCTION void run(Lane8 *memory, int n)
  {
    T *const at = reinterpret_cast<T *>(memory);
    T sum[8];
    for (int k = 0; k < 8; k++) sum[k] = at[k];
    for (int i = 8; i < n; i += 8)
      for (int k = 0; k < 8; k++) sum[k] += at[i + k];
    for (int k = 0; k < 8; k++) at[k] = sum[k] * 1e-9;
  }
};

struct StorePeak {
  template <class T> static MTP_FUNCTION void run(Lane8 *memory, int n)
  {
    T *const at = reinterpret_cast<T *>(memory);
    const T value = at[0];
    for (int i = 0; i < n; i += 8) {
      for (int k = 0; k < 8; k++) at[i + k] = value;
      touch(memory);
    }
  }
};

// y += a x: two loads, a store, as the adjoints of products do
struct UpdatePeak {
  template <class T> static MTP_FUNCTION void run(Lane8 *memory, int n)
  {
    T *const y = reinterpret_cast<T *>(memory), *const x = y + n / 2;
    const T a = x[0] * 1e-9;
    for (int i = 0; i < n / 2; i += 4)
      for (int k = 0; k < 4; k++) y[i + k] += a * x[i + k];
  }
};

void measure_machine(double budget)
{
  constexpr int in_l1 = 16 * 1024 / 64, in_l2 = 512 * 1024 / 64;
  Scratch<double> store;
  store.require(in_l2 * pack_width);
  Lane8 *const memory = reinterpret_cast<Lane8 *>(store.get());
  for (int k = 0; k < in_l2 * pack_width; k++) store.get()[k] = 0.5;
  const double fused = FusedPeak::packs() / best_time(budget, [&] { on_best_vectors<FusedPeak>(memory), touch(memory); });
  const double root = 64 / best_time(budget, [&] { on_best_vectors<RootPeak>(memory), touch(memory); });
  const auto rate = [&](auto kernel, int n) {
    using Kernel = decltype(kernel);
    return n / best_time(budget, [&] { on_best_vectors<Kernel>(memory, n), touch(memory); });
  };
  std::printf("\"machine\": {\"fused_packs_per_s\": %.6g, \"inverse_root_packs_per_s\": %.6g", fused, root);
  std::printf(", \"l1_loads_per_s\": %.6g, \"l1_stores_per_s\": %.6g, \"l1_updates_per_s\": %.6g", rate(LoadPeak{}, in_l1), rate(StorePeak{}, in_l1),
              rate(UpdatePeak{}, in_l1) / 2);
  std::printf(", \"l2_loads_per_s\": %.6g, \"l2_stores_per_s\": %.6g, \"l2_updates_per_s\": %.6g}", rate(LoadPeak{}, in_l2), rate(StorePeak{}, in_l2),
              rate(UpdatePeak{}, in_l2) / 2);
}

// ---- the atoms

// A crystal as pair_style mtp meets it: positions with images behind them, and lists out to the skin.
struct Crystal {
  static constexpr int side = 10, margin = 2, wide = side + 2 * margin;
  static constexpr double lattice = 3.61, skin = 1.0;
  std::vector<double> positions;
  std::vector<int> atoms, first{0}, listed;

  explicit Crystal(double cutoff)
  {
    constexpr double corner[4][3] = {{0, 0, 0}, {0, 0.5, 0.5}, {0.5, 0, 0.5}, {0.5, 0.5, 0}};
    std::mt19937 random(1);
    std::normal_distribution<double> displacement(0, 0.08);
    std::vector<double> moved(4 * 3 * side * side * side);
    for (double &value : moved) value = displacement(random);
    const auto site = [](int x, int y, int z, int k) { return ((x * wide + y) * wide + z) * 4 + k; };
    positions.resize(3 * 4 * wide * wide * wide);
    for (int x = 0; x < wide; x++)
      for (int y = 0; y < wide; y++)
        for (int z = 0; z < wide; z++)
          for (int k = 0; k < 4; k++) {
            const int cell[3] = {x, y, z};
            int own = 0;
            for (int value : cell) own = own * side + (value - margin + side) % side;
            for (int i = 0; i < 3; i++) positions[3 * site(x, y, z, k) + i] = lattice * (cell[i] + corner[k][i]) + moved[3 * (4 * own + k) + i];
          }
    const double limit = (cutoff + skin) * (cutoff + skin);
    for (int x = margin; x < wide - margin; x++)
      for (int y = margin; y < wide - margin; y++)
        for (int z = margin; z < wide - margin; z++)
          for (int k = 0; k < 4; k++) {
            const int i = site(x, y, z, k);
            for (int cell = 0; cell < 125; cell++)
              for (int l = 0; l < 4; l++) {
                const int j = site(x + cell / 25 - 2, y + cell / 5 % 5 - 2, z + cell % 5 - 2, l);
                double squared = 0;
                for (int a = 0; a < 3; a++) squared += std::pow(positions[3 * j + a] - positions[3 * i + a], 2);
                if (j != i && squared < limit) listed.push_back(j);
              }
            atoms.push_back(i);
            first.push_back(static_cast<int>(listed.size()));
          }
  }
  int n() const { return static_cast<int>(atoms.size()); }
  int n_listed(int k) const { return first[k + 1] - first[k]; }

  // As PairMTP::evaluate_group: the lists of atoms k ... to sites, and back to forces
  template <class T> void offer(Sites<T> &sites, int k, int n_lanes) const
  {
    int most = 0;
    for (int lane = 0; lane < n_lanes; lane++) most = std::max(most, n_listed(k + lane));
    sites.begin(0, most);
    for (int lane = 0; lane < n_lanes; lane++) {
      const double *const x = positions.data(), *const own = x + 3 * atoms[k + lane];
      const int *const list = &listed[first[k + lane]];
      sites.offer(lane, n_listed(k + lane), [=](int at, double *r) {
        for (int a = 0; a < 3; a++) r[a] = x[3 * list[at] + a] - own[a];
        return Named{0, list[at]};
      });
    }
  }
  template <class T> void book(const Sites<T> &sites, int k, int n_lanes, double *forces) const
  {
    for (int lane = 0; lane < n_lanes; lane++) {
      double sum[3] = {0, 0, 0};
      sites.for_each_neighbour(lane, [&](int j, const double *, const double *g) {
        for (int a = 0; a < 3; a++) sum[a] += g[a], forces[3 * j + a] -= g[a];
      });
      for (int a = 0; a < 3; a++) forces[3 * atoms[k + lane] + a] += sum[a];
    }
  }
};

// ---- a potential

struct Products {
  template <class T> static MTP_FUNCTION void run(const PlanView *plan, Lane8 *moments, Lane8 *adjoint)
  {
    T *const m = reinterpret_cast<T *>(moments);
    const T energy = energy_and_adjoint(*plan, m, reinterpret_cast<T *>(adjoint));
    reinterpret_cast<T *>(adjoint)[plan->n_moments] = energy;
  }
};

struct Group : Sites<double> {
  using Sites<double>::Sites;
  int slots() const { return n_slots[0]; }
  double per_slot_packs() const { return 3 + 3 + 1 + 1 + 3.0 * plan.n_radial + 3; }
  void count_whole() { ForwardAndBack::run<Counted>(static_cast<Sites<double> *>(this), false); }
  void count_products() { energy_and_adjoint(plan, reinterpret_cast<Counted *>(moments), reinterpret_cast<Counted *>(adjoint)); }
};

void print(const char *name, const Tally &t, const Traffic &traffic)
{
  std::printf(", \"%s\": {\"add\": %.0f, \"multiply\": %.0f, \"fused\": %.0f, \"divide\": %.0f, \"root\": %.0f, \"flop\": %.0f, "
              "\"loads\": %.0f, \"stores\": %.0f}",
              name, t.add, t.multiply, t.fused, t.divide, t.root, t.flop(), traffic.loads, traffic.stores);
}

void measure_potential(const std::string &path, double budget)
{
  const Potential potential = read_potential(path);
  const Plan compiled(potential);
  const PlanView plan = compiled.view();
  const Crystal crystal(plan.cutoff);

  Group one(plan);
  crystal.offer(one, 0, 1);
  one.evaluate(false);
  tally = {};
  one.count_whole();
  const Tally whole = tally;
  tally = {};
  one.count_products();
  const Tally products = tally;
  const Tally sweeps{whole.add - products.add, whole.multiply - products.multiply, whole.fused - products.fused, whole.divide - products.divide,
                     whole.root - products.root};

  Sites<Lane8> sites(plan);
  std::vector<double> forces(crystal.positions.size());
  const auto groups = [&](bool evaluate) {
    for (int k = 0; k < crystal.n(); k += pack_width) {
      crystal.offer(sites, k, pack_width);
      if (evaluate) sites.evaluate(false);
      crystal.book(sites, k, pack_width, forces.data());
    }
  };
  const double of_all = best_time(budget, [&] { groups(true); }) / crystal.n();
  const double of_lists = best_time(budget, [&] { groups(false); }) / crystal.n();
  Scratch<double> store;
  store.require((2 * static_cast<std::size_t>(plan.n_moments) + 1) * pack_width);
  for (int k = 0; k < (2 * plan.n_moments + 1) * pack_width; k++) store.get()[k] = 1e-3;
  Lane8 *const moments = reinterpret_cast<Lane8 *>(store.get());
  const double of_products = best_time(budget, [&] { on_best_vectors<Products>(&plan, moments, moments + plan.n_moments); }) / pack_width;

  double rows = 0;
  for (int i = 0; i < plan.n_inner_targets; i++) rows += plan.inner_targets[i].n_rows;
  std::printf(
      "{\"neighbours\": %d, \"listed\": %.1f, \"n_moments\": %d, \"n_summed\": %d, \"n_monomials\": %d, \"inner_rows\": %.0f, \"outer_rows\": %d",
      one.slots(), static_cast<double>(crystal.listed.size()) / crystal.n(), plan.n_moments, plan.n_summed, plan.n_monomials, rows,
      plan.n_outer_rows);
  std::printf(", \"bytes\": {\"moments_and_adjoints\": %d, \"neighbours\": %.0f, \"tables\": %.0f}", 2 * 64 * plan.n_moments,
              64 * one.slots() * one.per_slot_packs(),
              sizeof(Row) * (3 * rows + 2 * plan.n_outer_rows) + sizeof(Use) * plan.n_uses + sizeof(Target) * plan.n_inner_targets +
                  sizeof(Expansion) * plan.n_expansions);
  std::printf(", \"seconds_per_atom\": {\"all\": %.6g, \"lists\": %.6g, \"products\": %.6g}", of_all, of_lists, of_products);
  print("sweeps", sweeps, traffic_of_neighbours(plan, one.slots()));
  print("products", products, traffic_of_products(plan));
  std::printf("}");
}

}    // namespace mtp

int main(int n, char **arguments)
{
  if (n < 3) {
    std::fprintf(stderr, "usage: roofline SECONDS FILE.mtp ...\n");
    return 2;
  }
  const double budget = std::atof(arguments[1]);
  std::printf("{");
  mtp::measure_machine(budget / 4);
  std::printf(", \"potentials\": [");
  for (int k = 2; k < n; k++) {
    if (k > 2) std::printf(", ");
    mtp::measure_potential(arguments[k], budget);
  }
  std::printf("]}\n");
}
