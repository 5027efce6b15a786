// SPDX-License-Identifier: BSD-3-Clause
// A moment tensor potential as it stands in a file: .mtp (version 1.1.0), MLIP-3's .almtp and MLIP-2's .als (with an active set).
//
// Radial functions  f_mu(r, z_i, z_j) = scaling * sum_beta c[z_i][z_j][mu][beta] T_beta(xi) (r - cutoff)^2,  0 for r >= cutoff,
//                   xi = (2 r - (min_distance + cutoff)) / (cutoff - min_distance)
// Site energy       V_i = species_coeffs[z_i] + sum_alpha moment_coeffs[alpha] B_alpha
//                   with a guard, the radial functions fade at short distances and a repulsion of nuclei is added: guard.hpp
// Parameters        theta = (radial coefficients, species coefficients, moment coefficients), in this order
// Units             eV, Angstrom
#pragma once

#include "active_set.hpp"
#include "basis.hpp"
#include "guard.hpp"

#include <optional>
#include <string>
#include <vector>

namespace mtp {

struct Potential {
  std::string name = "MTP1m";
  std::string tag;                      // the file's free text, without the element names and the guard
  std::vector<std::string> elements;    // empty where the file names none
  int n_species = 1;
  int n_chebyshev = 8;
  double scaling = 1;
  double min_distance = 0;    // maps the interval; distances below are not clamped
  double cutoff = 0;
  Basis basis;
  bool trained = false;                  // whether the file holds coefficients
  std::vector<double> radial_coeffs;     // [z_i][z_j][mu][beta]
  std::vector<double> species_coeffs;    // [z_i]
  std::vector<double> moment_coeffs;     // [alpha]
  std::optional<Guard> guard;
  std::optional<ActiveSet> active_set;

  int n_radial() const { return basis.n_radial; }
  int n_radial_coeffs() const { return n_species * n_species * n_radial() * n_chebyshev; }
  int n_parameters() const { return n_radial_coeffs() + n_species + basis.n_scalar(); }

  void get_parameters(double *theta) const;
  void set_parameters(const double *theta);    // drops the active set, whose rows depend on the parameters

  void set_guard(std::optional<Guard> next);    // drops the active set, as above; throws Error(argument) where it does not fit

  // Same basis, cutoff, radial basis and species, and both or neither with a guard, whose distances may differ as coefficients do: what a running
  // simulation may be handed in exchange.
  bool same_form_as(const Potential &other) const;

  void check(const std::string &where) const;    // throws Error(format)
};

Potential read_potential(const std::string &path);

// Writes .mtp text, followed by the active set (as in .almtp) where `with_active_set`. The file appears whole or not at all.
void write_potential(const Potential &potential, const std::string &path, bool with_active_set);

}    // namespace mtp
