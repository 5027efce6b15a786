// SPDX-License-Identifier: BSD-3-Clause
// What a `mtp_potential *` of the C interface points to.
#pragma once

#include "../core/plan.hpp"
#include "../core/potential.hpp"

#include <optional>
#include <string>
#include <utility>

struct mtp_potential {
  mtp::Potential potential;
  std::optional<mtp::Plan> plan;    // where it is trained
  std::string elements;             // comma-separated, what mtp_potential_get_elements lends

  explicit mtp_potential(mtp::Potential p) : potential(std::move(p)) { refresh(); }
  mtp_potential(const mtp_potential &other) : mtp_potential(other.potential) {}
  mtp_potential &operator=(const mtp_potential &) = delete;

  void refresh()
  {
    plan.reset();
    if (potential.trained) plan.emplace(potential);
    elements.clear();
    for (const auto &name : potential.elements) elements += (elements.empty() ? "" : ",") + name;
  }
  const mtp::Plan &compiled() const
  {
    if (!plan) mtp::Plan{potential};    // throws: not trained
    return *plan;
  }
};
