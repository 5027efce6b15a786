// SPDX-License-Identifier: BSD-3-Clause
#include "live.hpp"

#include "guarded.hpp"
#include "mtp.h"
#include "mtp_potential.hpp"

#include "../core/error.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

namespace mtp {
namespace {

struct Registry {
  std::mutex mutex;
  std::int64_t last_handle = 0;
  std::map<std::int64_t, std::weak_ptr<LiveStyle>> styles;
};

Registry &registry()
{
  static Registry the_registry;
  return the_registry;
}

struct DeadHandle : Error {
  explicit DeadHandle(std::int64_t handle)
      : Error(Kind::argument,
              "pair style handle " + std::to_string(handle) + " is dead: its LAMMPS object was closed or cleared, or chose another pair style")
  {
  }
};

std::shared_ptr<LiveStyle> find(std::int64_t handle)
{
  std::lock_guard<std::mutex> lock(registry().mutex);
  const auto found = registry().styles.find(handle);
  auto style = found == registry().styles.end() ? nullptr : found->second.lock();
  if (!style) throw DeadHandle(handle);
  return style;
}

// As guarded(), with the style of the handle locked for the time of the action.
template <class Action> mtp_status with_style(std::int64_t handle, const Action &action)
{
  return guarded([&]() -> mtp_status {
    try {
      const auto style = find(handle);
      std::lock_guard<std::mutex> lock(style->mutex);
      action(*style);
      return MTP_SUCCESS;
    } catch (const DeadHandle &dead) {
      return failed(MTP_ERROR_DEAD_HANDLE, dead.what());
    }
  });
}

}    // namespace

std::shared_ptr<const Model> LiveStyle::current_model()
{
  std::lock_guard<std::mutex> lock(mutex);
  return model;
}

void LiveStyle::set_model(std::shared_ptr<const Model> next)
{
  std::lock_guard<std::mutex> lock(mutex);
  model = std::move(next);
  version++;
}

void LiveStyle::count(double highest)
{
  constexpr std::array<double, 9> ends = {1.001, 1.5, 2, 3, 5, 10, 20, 50, 100};
  histogram[std::lower_bound(ends.begin(), ends.end(), highest) - ends.begin()]++;
  highest_grade = std::max(highest_grade, highest);
}

std::shared_ptr<LiveStyle> register_live_style(std::uint64_t lammps)
{
  auto style = std::make_shared<LiveStyle>();
  style->lammps = lammps;
  std::lock_guard<std::mutex> lock(registry().mutex);
  registry().styles[++registry().last_handle] = style;
  return style;
}

}    // namespace mtp

using namespace mtp;

extern "C" {

mtp_status mtp_live_list(int32_t capacity, int64_t *handles, int32_t *n)
{
  return guarded([&] {
    std::lock_guard<std::mutex> lock(registry().mutex);
    auto &styles = registry().styles;
    for (auto entry = styles.begin(); entry != styles.end();) entry = entry->second.expired() ? styles.erase(entry) : std::next(entry);
    *n = 0;
    for (const auto &entry : styles) {
      if (*n < capacity) handles[*n] = entry.first;
      (*n)++;
    }
    return MTP_SUCCESS;
  });
}

mtp_status mtp_live_get_facts(int64_t handle, mtp_live_facts *facts)
{
  return with_style(handle, [&](LiveStyle &style) {
    *facts = {style.lammps, style.version, static_cast<int64_t>(style.flagged.size()), style.n_dropped, style.break_step, style.highest_grade, {}};
    std::copy(style.histogram.begin(), style.histogram.end(), facts->histogram);
  });
}

mtp_status mtp_live_watch(int64_t handle, double select_above, double break_above, int64_t capacity, double radius)
{
  return with_style(handle, [&](LiveStyle &style) {
    if (std::isnan(select_above) || std::isnan(break_above) || std::isnan(radius) || std::isinf(radius) || capacity < 0)
      throw Error(Error::Kind::argument, "thresholds and radius must be numbers, the radius finite, and the capacity not negative");
    if (select_above > 0 && break_above < select_above) throw Error(Error::Kind::argument, "the break threshold lies below the select threshold");
    style.select_above = std::max(select_above, 0.0);
    style.break_above = break_above;
    style.capacity = capacity;
    style.radius = std::max(radius, 0.0);
  });
}

mtp_status mtp_live_get_flagged(int64_t handle, int64_t index, mtp_flagged *flagged, int64_t *tags, int32_t *species, double *positions,
                                double *grades)
{
  return with_style(handle, [&](LiveStyle &style) {
    if (index < 0 || index >= static_cast<int64_t>(style.flagged.size()))
      throw Error(Error::Kind::argument, "flagged entry " + std::to_string(index) + " of " + std::to_string(style.flagged.size()));
    const Flagged &kept = style.flagged[index];
    flagged->step = kept.step;
    flagged->centre = kept.centre;
    flagged->n_atoms = static_cast<int64_t>(kept.tags.size());
    flagged->grade = kept.grade;
    std::copy(kept.cell, kept.cell + 9, flagged->cell);
    std::copy(kept.origin, kept.origin + 3, flagged->origin);
    std::copy(kept.periodic, kept.periodic + 3, flagged->periodic);
    if (tags) std::copy(kept.tags.begin(), kept.tags.end(), tags);
    if (species) std::copy(kept.species.begin(), kept.species.end(), species);
    if (positions) std::copy(kept.positions.begin(), kept.positions.end(), positions);
    if (grades) std::copy(kept.grades.begin(), kept.grades.end(), grades);
  });
}

mtp_status mtp_live_clear(int64_t handle)
{
  return with_style(handle, [&](LiveStyle &style) {
    style.flagged.clear();
    style.n_dropped = 0;
    style.break_step = -1;
    style.highest_grade = 0;
    style.histogram.fill(0);
  });
}

mtp_status mtp_live_set_potential(int64_t handle, const mtp_potential *potential)
{
  return with_style(handle, [&](LiveStyle &style) {
    const Potential &next = potential->potential;
    if (!style.model) throw Error(Error::Kind::incompatible, "the pair style has no potential yet: pair_coeff comes first");
    const Potential &running = style.model->potential;
    if (!next.same_form_as(running))
      throw Error(Error::Kind::incompatible,
                  "the new potential has another basis, cutoff, radial basis or species than the running one, or only one of them has a guard; "
                  "start a new run with it");
    if (running.active_set && !next.active_set)
      throw Error(Error::Kind::incompatible,
                  "the new potential has no active set, but the running one grades with one; build it first (`mtp select`)");
    style.model = std::make_shared<const Model>(next);
    style.version++;
  });
}

}    // extern "C"
