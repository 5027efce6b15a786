// SPDX-License-Identifier: BSD-3-Clause
// Where a running pair style and its host meet: the pair style reads its model here and leaves what it flagged; the C interface hands both on.
#pragma once

#include "../core/plan.hpp"
#include "../core/potential.hpp"

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

namespace mtp {

// A potential compiled for evaluation. Immutable once shared.
struct Model {
  Potential potential;
  Plan plan;
  explicit Model(Potential p) : potential(std::move(p)), plan(potential) {}
};

// This rank's atoms of a configuration, or of a neighbourhood, whose positions are then from its centre.
struct Flagged {
  std::int64_t step = 0, centre = -1;    // centre: its tag; -1: a configuration
  double grade = 0;
  double cell[9] = {}, origin[3] = {};
  int periodic[3] = {};
  std::vector<std::int64_t> tags;
  std::vector<std::int32_t> species;
  std::vector<double> positions, grades;
};

// One live pair style. The pair style and the registry share it; all members are guarded by the mutex.
struct LiveStyle {
  std::mutex mutex;
  std::uint64_t lammps = 0;
  std::shared_ptr<const Model> model;    // null until pair_coeff
  std::int64_t version = 0;
  double select_above = 0, break_above = std::numeric_limits<double>::infinity();
  double radius = 0;    // of neighbourhoods to keep; 0: whole configurations
  std::int64_t capacity = 0, n_dropped = 0, break_step = -1;
  double highest_grade = 0;
  std::array<std::int64_t, 10> histogram = {};
  std::vector<Flagged> flagged;

  std::shared_ptr<const Model> current_model();
  void set_model(std::shared_ptr<const Model> next);
  void count(double highest);    // of a graded step
};

// Registers a pair style under a new handle; it stays listed until the returned pointer's last owner lets go of it.
std::shared_ptr<LiveStyle> register_live_style(std::uint64_t lammps);

}    // namespace mtp
