// SPDX-License-Identifier: GPL-2.0-or-later
// What sites add to the sums of their atoms, and where it goes: to LAMMPS' arrays, or, where another thread may write to the same atom, into pages of
// the thread's own. A thread evaluates atoms that are close together in memory, and needs pages where these and their neighbours are: a full copy of
// the arrays a thread it is only where atoms are in no order (`atom_modify sort 0`).
#pragma once

#include "lmptype.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

namespace LAMMPS_NS {

struct Share {
  int atom;
  double force[3];
};

struct VirialShare {
  int atom;
  double six[6];     // symmetric: xx yy zz xy xz yz
  double nine[9];    // centroid: xx yy zz xy xz yz yx zx zy
};

// Sums over all atoms
struct Totals {
  double energy = 0, virial[6] = {};
};

// LAMMPS' arrays
struct SumsOfAtoms {
  double *forces;          // [atom][3], contiguous
  double **six, **nine;    // [atom][6 or 9]; null where they are not asked for

  int columns() const { return 3 + (six ? 6 : 0) + (nine ? 9 : 0); }
  void operator()(const Share &share) const { add(3, share.force, forces + 3 * static_cast<bigint>(share.atom)); }
  void operator()(const VirialShare &share) const
  {
    if (six) add(6, share.six, six[share.atom]);
    if (nine) add(9, share.nine, nine[share.atom]);
  }
  // A row as SumsOfThread has it
  void add_row(int atom, const double *row) const
  {
    add(3, row, forces + 3 * static_cast<bigint>(atom));
    if (six) add(6, row + 3, six[atom]);
    if (nine) add(9, row + (six ? 9 : 3), nine[atom]);
  }

  static void add(int n, const double *values, double *to)
  {
    for (int k = 0; k < n; k++) to[k] += values[k];
  }
};

// Those of one thread in one step
class SumsOfThread {
 public:
  static constexpr int atoms_of_page = 512;

  void begin(int n_atoms, const SumsOfAtoms &sums)
  {
    n_columns = sums.columns();
    has_six = sums.six, has_nine = sums.nine;
    pages.resize((n_atoms + atoms_of_page - 1) / atoms_of_page);
    rows.assign(pages.size(), nullptr);
  }
  void operator()(const Share &share) { SumsOfAtoms::add(3, share.force, n_columns == 3 ? row(share.atom, 3) : row(share.atom, n_columns)); }
  void operator()(const VirialShare &share)
  {
    double *const to = row(share.atom, n_columns);
    if (has_six) SumsOfAtoms::add(6, share.six, to + 3);
    if (has_nine) SumsOfAtoms::add(9, share.nine, to + (has_six ? 9 : 3));
  }

  int n_pages() const { return static_cast<int>(pages.size()); }

  // Adds one page to LAMMPS' arrays and lets go of the memory where this step did not need it.
  void hand_over(int number, int n_atoms, const SumsOfAtoms &sums)
  {
    if (!rows[number]) {
      pages[number] = {};
      return;
    }
    const int first = number * atoms_of_page, n = std::min(atoms_of_page, n_atoms - first);
    for (int k = 0; k < n; k++) sums.add_row(first + k, rows[number] + static_cast<std::size_t>(k) * n_columns);
  }

  std::size_t bytes() const
  {
    std::size_t sum = pages.capacity() * sizeof(Page) + rows.capacity() * sizeof(double *);
    for (const Page &page : pages) sum += page.size * sizeof(double);
    return sum;
  }

 private:
  struct Page {
    std::unique_ptr<double[]> memory;
    std::size_t size = 0;
  };
  std::vector<Page> pages;
  std::vector<double *> rows;    // [page], of which each is [atom][column]: forces, six, nine; null: nothing was added in this step
  int n_columns = 3;
  bool has_six = false, has_nine = false;

  // once for every neighbour
  double *row(int atom, int columns)
  {
    const unsigned number = static_cast<unsigned>(atom) / atoms_of_page, place = static_cast<unsigned>(atom) % atoms_of_page;    // a shift, a mask
    if (__builtin_expect(!rows[number], 0)) begin_page(number);
    return rows[number] + static_cast<std::size_t>(place) * columns;
  }

  __attribute__((noinline)) void begin_page(unsigned number)
  {
    Page &page = pages[number];
    const std::size_t n = static_cast<std::size_t>(atoms_of_page) * n_columns;
    if (page.size != n) {
      page.memory.reset(new double[n]);
      page.size = n;
    }
    rows[number] = page.memory.get();
    std::fill(rows[number], rows[number] + n, 0.0);
  }
};

}    // namespace LAMMPS_NS
