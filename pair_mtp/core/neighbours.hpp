// SPDX-License-Identifier: BSD-3-Clause
// Neighbourhoods of the atoms of configurations: all atoms closer than a cutoff, over any number of periodic images. Hosts with lists of their own
// (LAMMPS) need none of this.
#pragma once

#include <cstdint>
#include <vector>

namespace mtp {

// The pairs of atom i are first[i] ... first[i + 1] - 1: neighbour j and r_ij = r_j - r_i [3]. Arrays may be longer than the pairs.
struct Neighbours {
  std::vector<std::int64_t> first{0};
  std::vector<std::int32_t> index;
  std::vector<double> vectors;

  std::int64_t n_atoms() const { return static_cast<std::int64_t>(first.size()) - 1; }
};

// Searches one configuration after another. Keeps its scratch.
class NeighbourSearch {
 public:
  explicit NeighbourSearch(double cutoff);

  // Appends the neighbourhoods of n more atoms, numbered after those that `found` has. positions[n][3]; cell[3][3], rows a, b, c, of which those of
  // directions that are not periodic are not read but must be finite. Throws Error for numbers that are not finite and cells without volume.
  void append(std::int64_t n, const double *positions, const double *cell, const std::int32_t *periodic, Neighbours &found);

 private:
  double cutoff;
  double vectors[3][3], inverse[3][3], reach[3], low[3], high[3];    // inverse: rows b_d, fractional s_d = b_d . r; reach: of the cutoff, in s
  int n_bins[3];
  std::vector<double> position, fraction;    // [n][3], wrapped into the cell along periodic directions
  struct Image {
    double r[3];
    std::int32_t atom, bin;
  };
  std::vector<Image> images;
  std::vector<std::int32_t> start, atom_of;    // [bins + 1], and images by bin
  std::vector<double> x, y, z;

  void set_cell(const double *cell, const std::int32_t *periodic);
  void wrap(std::int64_t n, const double *positions, const std::int32_t *periodic);
  void collect_images(std::int64_t n, const std::int32_t *periodic);
  void sort_into_bins();
  int bin_along(int direction, double s) const;
};

}    // namespace mtp
