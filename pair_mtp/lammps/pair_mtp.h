// SPDX-License-Identifier: GPL-2.0-or-later
// pair_style mtp: moment tensor potentials. The core evaluates one neighbourhood at a time; this class walks LAMMPS' neighbour list and books
// energies, forces and virials.
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

#include "pair.h"

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
  const std::string style;
  std::shared_ptr<mtp::LiveStyle> live;
  std::shared_ptr<const mtp::Model> model;           // what this step computes with
  std::unique_ptr<mtp::Sites<mtp::Lane8>> sites;     // reads the plan in `model`
  std::vector<int> species_of_type;                  // [ntypes + 1]; -1: not this style's
  std::vector<std::vector<int>> atoms_of_species;    // those of the neighbour list

  // Takes what the live style holds now: between two runs a driver may have exchanged it.
  virtual void use_current_model();
  void evaluate_atoms(int eflag, int vflag, bool all_scalars);

  // For styles that need more than energy and forces. require: error->all where the potential lacks something. visit: after the evaluation of a
  // group of n atoms of one species, one a lane.
  virtual void require(const mtp::Potential &, const std::string &) {}
  virtual void visit(int /*species*/, const int * /*atoms*/, int /*n*/) {}

 private:
  std::string legacy_file;
  double energy_unit = 1;    // LAMMPS' energy unit in 1/eV

  void allocate();
  std::shared_ptr<const mtp::Model> read(const std::string &name);
  int species_of(const std::string &name, const mtp::Potential &potential);
  void sort_by_species();
  void evaluate_group(int species, const int *atoms, int n, bool all_scalars);
  void offer_neighbours(int lane, int i);
  void book(int lane, int i);
  void book_virial(int i, int j, const double *r, const double *g);
};

}    // namespace LAMMPS_NS

#endif
