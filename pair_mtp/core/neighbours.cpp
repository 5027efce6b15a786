// SPDX-License-Identifier: BSD-3-Clause
#include "neighbours.hpp"

#include "error.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

namespace mtp {
namespace {

constexpr double least_volume = 1e-6;    // cubic Angstrom: a cell with less is a mistake
constexpr double most_images = 1e8;      // a few gigabytes; far more than any configuration within reach of a cutoff has
constexpr double slack = 1e-9;           // relative, of the reach: rounding must lose no neighbour
constexpr int bins_per_reach = 2;

void cross(const double *a, const double *b, double *c)
{
  for (int i = 0; i < 3; i++) c[i] = a[(i + 1) % 3] * b[(i + 2) % 3] - a[(i + 2) % 3] * b[(i + 1) % 3];
}

double dot(const double *a, const double *b)
{
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

void normalise(double *a)
{
  const double size = std::sqrt(dot(a, a));
  if (size > 0)
    for (int i = 0; i < 3; i++) a[i] /= size;
}

void require_finite(const double *values, std::int64_t n)
{
  if (!std::all_of(values, values + n, [](double value) { return std::isfinite(value); }))
    throw Error(Error::Kind::argument, "positions or cell hold NaN or infinity");
}

}    // namespace

NeighbourSearch::NeighbourSearch(double c) : cutoff(c)
{
  if (!(cutoff > 0) || !std::isfinite(cutoff)) throw Error(Error::Kind::argument, "the cutoff of a neighbour search must be positive and finite");
}

// Directions that are not periodic get unit vectors normal to the others.
void NeighbourSearch::set_cell(const double *cell, const std::int32_t *periodic)
{
  require_finite(cell, 9);
  for (int d = 0; d < 3; d++) {
    std::copy(cell + 3 * d, cell + 3 * d + 3, vectors[d]);
    if (periodic[d] && dot(vectors[d], vectors[d]) == 0)
      throw Error(Error::Kind::argument, "periodic along a direction that has no cell vector; give the cell or set pbc to F");
  }
  const int n_periodic = (periodic[0] != 0) + (periodic[1] != 0) + (periodic[2] != 0);
  if (n_periodic == 0)
    for (int d = 0; d < 3; d++)
      for (int i = 0; i < 3; i++) vectors[d][i] = d == i;
  if (n_periodic == 1) {
    const int d = periodic[0] ? 0 : periodic[1] ? 1 : 2;
    const double *const along = vectors[d];
    double axis[3] = {0, 0, 0};    // the one that is the least parallel
    axis[std::min_element(along, along + 3, [](double l, double r) { return std::fabs(l) < std::fabs(r); }) - along] = 1;
    cross(along, axis, vectors[(d + 1) % 3]);
    normalise(vectors[(d + 1) % 3]);
    cross(along, vectors[(d + 1) % 3], vectors[(d + 2) % 3]);
    normalise(vectors[(d + 2) % 3]);
  }
  if (n_periodic == 2) {
    const int d = !periodic[0] ? 0 : !periodic[1] ? 1 : 2;
    cross(vectors[(d + 1) % 3], vectors[(d + 2) % 3], vectors[d]);
    normalise(vectors[d]);
  }
  for (int d = 0; d < 3; d++) cross(vectors[(d + 1) % 3], vectors[(d + 2) % 3], inverse[d]);
  const double volume = dot(vectors[0], inverse[0]);
  if (!(std::fabs(volume) >= least_volume)) throw Error(Error::Kind::argument, "the cell has no volume (its vectors are linearly dependent)");
  for (int d = 0; d < 3; d++) {
    for (int i = 0; i < 3; i++) inverse[d][i] /= volume;
    reach[d] = cutoff * std::sqrt(dot(inverse[d], inverse[d])) * (1 + slack);
  }
}

void NeighbourSearch::wrap(std::int64_t n, const double *positions, const std::int32_t *periodic)
{
  require_finite(positions, 3 * n);
  position.assign(positions, positions + 3 * n);
  fraction.resize(3 * n);
  for (int d = 0; d < 3; d++) {
    low[d] = std::numeric_limits<double>::infinity();
    high[d] = -low[d];
  }
  for (std::int64_t k = 0; k < n; k++) {
    double *const r = &position[3 * k];
    double s[3];
    for (int d = 0; d < 3; d++) s[d] = dot(inverse[d], r);
    for (int d = 0; d < 3; d++) {
      const double cells = periodic[d] ? std::floor(s[d]) : 0;
      if (cells != 0)
        for (int i = 0; i < 3; i++) r[i] -= cells * vectors[d][i];
      s[d] -= cells;
      fraction[3 * k + d] = s[d];
      low[d] = std::min(low[d], s[d]);
      high[d] = std::max(high[d], s[d]);
    }
  }
}

int NeighbourSearch::bin_along(int d, double s) const
{
  const double from = low[d] - reach[d], range = high[d] + reach[d] - from;
  return std::clamp(static_cast<int>((s - from) * (n_bins[d] / range)), 0, n_bins[d] - 1);
}

// All images that may be neighbours of the atoms themselves.
void NeighbourSearch::collect_images(std::int64_t n, const std::int32_t *periodic)
{
  const auto shifts = [&](std::int64_t k, int d, double *lowest, double *highest) {
    const double s = fraction[3 * k + d];
    *lowest = periodic[d] ? std::ceil(low[d] - reach[d] - s) : 0;
    *highest = periodic[d] ? std::floor(high[d] + reach[d] - s) : 0;
  };
  double number = 0;
  for (std::int64_t k = 0; k < n; k++) {
    double product = 1, lowest, highest;
    for (int d = 0; d < 3; d++) {
      shifts(k, d, &lowest, &highest);
      product *= highest - lowest + 1;
    }
    number += product;
  }
  if (!(number < most_images))
    throw Error(Error::Kind::argument, "a cutoff of " + std::to_string(cutoff) +
                                           " reaches more than 1e8 atoms or their periodic images: check the units of cell and cutoff");

  double most_bins = 2 * number + 64;
  for (int d = 0; d < 3; d++)
    n_bins[d] = std::max(1, static_cast<int>(std::min((high[d] - low[d] + 2 * reach[d]) / reach[d] * bins_per_reach, most_bins)));
  while (static_cast<double>(n_bins[0]) * n_bins[1] * n_bins[2] > most_bins) *std::max_element(n_bins, n_bins + 3) /= 2;

  images.clear();
  images.reserve(static_cast<std::size_t>(number));
  for (std::int64_t k = 0; k < n; k++) {
    double lowest[3], highest[3], shift[3];
    for (int d = 0; d < 3; d++) shifts(k, d, &lowest[d], &highest[d]);
    for (shift[2] = lowest[2]; shift[2] <= highest[2]; shift[2]++)
      for (shift[1] = lowest[1]; shift[1] <= highest[1]; shift[1]++)
        for (shift[0] = lowest[0]; shift[0] <= highest[0]; shift[0]++) {
          Image image;
          int bin[3];
          for (int i = 0; i < 3; i++) {
            image.r[i] = position[3 * k + i] + (shift[0] * vectors[0][i] + shift[1] * vectors[1][i] + shift[2] * vectors[2][i]);
            bin[i] = bin_along(i, fraction[3 * k + i] + shift[i]);
          }
          image.atom = static_cast<std::int32_t>(k);
          image.bin = (bin[2] * n_bins[1] + bin[1]) * n_bins[0] + bin[0];
          images.push_back(image);
        }
  }
}

void NeighbourSearch::sort_into_bins()
{
  start.assign(static_cast<std::size_t>(n_bins[0]) * n_bins[1] * n_bins[2] + 1, 0);
  for (const Image &image : images) start[image.bin]++;
  std::int32_t sum = 0;
  for (auto &entry : start) {
    const std::int32_t size = entry;
    entry = sum;
    sum += size;
  }
  x.resize(images.size());
  y.resize(images.size());
  z.resize(images.size());
  atom_of.resize(images.size());
  for (const Image &image : images) {
    const std::int32_t at = start[image.bin]++;
    x[at] = image.r[0], y[at] = image.r[1], z[at] = image.r[2];
    atom_of[at] = image.atom;
  }
  std::copy_backward(start.begin(), start.end() - 1, start.end());    // they stand at the ends of their bins
  start[0] = 0;
}

void NeighbourSearch::append(std::int64_t n, const double *positions, const double *cell, const std::int32_t *periodic, Neighbours &found)
{
  set_cell(cell, periodic);
  if (n == 0) return;
  wrap(n, positions, periodic);
  collect_images(n, periodic);
  sort_into_bins();

  const std::int32_t offset = static_cast<std::int32_t>(found.n_atoms());
  const double limit = cutoff * cutoff;
  const double *const xs = x.data(), *const ys = y.data(), *const zs = z.data();
  const std::int32_t *const atoms = atom_of.data();
  std::size_t filled = static_cast<std::size_t>(found.first.back());
  for (std::int32_t i = 0; i < n; i++) {
    const double xi = position[3 * i], yi = position[3 * i + 1], zi = position[3 * i + 2];
    int from[3], to[3];
    for (int d = 0; d < 3; d++) {
      const int bin = bin_along(d, fraction[3 * i + d]);
      from[d] = std::max(bin - bins_per_reach, 0);
      to[d] = std::min(bin + bins_per_reach, n_bins[d] - 1);
    }
    for (int b2 = from[2]; b2 <= to[2]; b2++)
      for (int b1 = from[1]; b1 <= to[1]; b1++) {
        const std::int32_t *const row = &start[(static_cast<std::size_t>(b2) * n_bins[1] + b1) * n_bins[0]];
        const std::int32_t begin = row[from[0]], end = row[to[0] + 1];
        if (found.index.size() < filled + (end - begin)) {
          const std::size_t size = 2 * (filled + (end - begin));
          found.index.resize(size);
          found.vectors.resize(3 * size);
        }
        std::int32_t *const index = found.index.data();
        double *const vectors_found = found.vectors.data();
        std::size_t at = filled;
        for (std::int32_t k = begin; k < end; k++) {
          const double dx = xs[k] - xi, dy = ys[k] - yi, dz = zs[k] - zi, squared = dx * dx + dy * dy + dz * dz;
          double *const vector = vectors_found + 3 * at;
          vector[0] = dx, vector[1] = dy, vector[2] = dz;
          index[at] = offset + atoms[k];
          at += (squared < limit) & ((atoms[k] != i) | (squared > 0));
        }
        filled = at;
      }
    found.first.push_back(static_cast<std::int64_t>(filled));
  }
}

}    // namespace mtp
