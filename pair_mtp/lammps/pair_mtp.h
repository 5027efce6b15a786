// SPDX-License-Identifier: GPL-2.0-or-later
// pair_style mtp: moment tensor potentials. The core evaluates one neighbourhood at a time; this class walks LAMMPS' neighbour list and books
// energies, forces and virials.
//
// With several threads (LAMMPS' comm->nthreads) each evaluates its part of the groups of atoms; sums.hpp tells how what they find comes together.
// pair_style mtp/kk (pair_mtp/kokkos) derives from this class: it brings other lists, and threads that are Kokkos'.
//
//   pair_style mtp
//   pair_coeff * * file El1 El2 ...     one element for each atom type: a name, or an integer 0 ... S-1 (the species' index in the file), or NULL
//                                       for types that another style of a hybrid handles
//
// units metal or real; newton_pair on.
#ifndef LMP_PAIR_MTP_H
#define LMP_PAIR_MTP_H

#include "../capi/live.hpp"
#include "../core/sites.hpp"
#include "sums.hpp"

#include "pair.h"

#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace LAMMPS_NS {

class PairMTP : public Pair {
 public:
  explicit PairMTP(class LAMMPS *lmp, const char *style = "mtp");
  ~PairMTP() override;

  void settings(int narg, char **arg) override;
  void coeff(int narg, char **arg) override;
  void init_style() override;
  double init_one(int i, int j) override;
  void compute(int eflag, int vflag) override;
  double memory_usage() override;

 protected:
  using Sites = mtp::Sites<mtp::Lane8>;

  // Atoms of one species, one a lane
  struct Group {
    int species, n;
    const int *atoms;
  };

  // What the neighbour list holds of an atom: neighbour k is first[k * stride]
  struct Listed {
    int n;
    const int *first;
    std::ptrdiff_t stride;
  };

  // What one part of the atoms is evaluated with, a thread each
  struct Worker {
    Sites site;
    Totals totals;
    SumsOfThread sums;
    Group failed = {};    // the first of this part, and how: LAMMPS must not hear of it inside a thread
    std::exception_ptr failure;
    explicit Worker(const mtp::PlanView &plan) : site(plan) {}
  };

  const std::string style;
  std::shared_ptr<mtp::LiveStyle> live;
  std::shared_ptr<const mtp::Model> model;    // what this step computes with
  std::vector<Worker> workers;                // [part]; they read the plan in `model`
  std::vector<int> species_of_type;           // [ntypes + 1]; -1: not this style's
  double energy_unit = 1;                     // LAMMPS' energy unit in 1/eV

  // Takes what the live style holds now: between two runs a driver may have exchanged it. Gives each part its scratch.
  virtual void use_current_model();

  virtual int n_parts() const;
  // Calls action(part) for all parts, each in a thread of its own where there are as many.
  virtual void for_each_part(const std::function<void(int)> &action) const;
  virtual const int *centres() const;    // [list->inum]
  virtual Listed listed(int i) const;
  virtual void evaluate_atoms(int eflag, int vflag, bool all_scalars);

  // For styles that need more than energy and forces. require: error->all where the potential lacks something. visit: after the evaluation of a
  // group, in the thread of its part, beside others.
  virtual void require(const mtp::Potential &, const std::string &) {}
  virtual void visit(int /*part*/, const Group &) {}

 private:
  std::string legacy_file;
  std::vector<std::vector<int>> atoms_of_species;    // those of the neighbour list

  void allocate();
  std::shared_ptr<const mtp::Model> read(const std::string &name);
  int species_of(const std::string &name, const mtp::Potential &potential);
  void sort_by_species();
  template <class Sums> void evaluate_part(int part, bool all_scalars, Sums &sums);
  template <class Sums> void evaluate_group(int part, const Group &group, bool all_scalars, Sums &sums);
  void offer_neighbours(Sites &site, int lane, int i, const Listed &neighbours) const;
  template <class Sums> void book(const Sites &site, int lane, int i, Totals &totals, Sums &sums);
  void add_totals();
  void raise_failure();
};

}    // namespace LAMMPS_NS

#endif
