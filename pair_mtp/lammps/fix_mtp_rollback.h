// SPDX-License-Identifier: GPL-2.0-or-later
// fix mtp/rollback: keeps the latest state of a run that a potential with extrapolation grades could be trusted with, and puts it back.
//
//   fix ID all mtp/rollback N          looks every N steps whether the state is to be kept
//   fix ID all mtp/rollback N G B      also where no driver does: states up to grade G are trusted, above B the run ends
//   fix_modify ID restore              between two runs: back to the state kept
//   f_ID, f_ID[1]                      its step; the step at which a grade ended the run; -1 before there is one
#ifndef LMP_FIX_MTP_ROLLBACK_H
#define LMP_FIX_MTP_ROLLBACK_H

#include "fix.h"

#include <string>
#include <vector>

namespace LAMMPS_NS {

class PairMTPExtrapolation;

class FixMTPRollback : public Fix {
 public:
  FixMTPRollback(class LAMMPS *lmp, int narg, char **arg);

  int setmask() override;
  void init() override;
  void setup(int vflag) override;
  void end_of_step() override;
  void post_run() override;
  int modify_param(int narg, char **arg) override;
  double compute_scalar() override;
  double compute_vector(int) override;
  double memory_usage() override;

 private:
  // State of another fix: of each of this rank's atoms, and, on rank 0, what it writes to restart files
  struct FixState {
    std::string id;
    std::vector<double> of_atoms;
    std::vector<char> global;
  };

  struct Snapshot {
    bigint step = -1, n_atoms = 0;
    bigint n_bonds = 0, n_angles = 0, n_dihedrals = 0, n_impropers = 0;
    double time = 0;
    double low[3] = {}, high[3] = {}, tilt[3] = {};    // tilt: xy xz yz
    int triclinic = 0, n_local = 0;
    std::vector<std::vector<char>> arrays;    // in the order of Atom::peratom
    std::vector<FixState> fixes;
  };

  struct Watched {
    PairMTPExtrapolation *style;
    bool has_watch;
  };

  double select_above = 0, break_above = 0;    // 0: what a driver says
  Snapshot kept;
  std::vector<Watched> styles;
  bigint left_at = -1;    // the step at which the last run ended, or to which the state was put back

  void find_styles();
  void check_fixes();
  bool keeps_atoms_on_a_device(const Fix *other) const;
  bool trusted() const;
  void keep();
  void keep_fix(Fix *other, FixState &state);
  void put_back();
  void check_snapshot();
  void put_back_atoms();
  void put_back_fixes();
  void put_back_step();
};

}    // namespace LAMMPS_NS

#endif
