/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The C interface of libmtp: the contract between the C++ core and Python (or any other language).
 *
 * Units are eV and Angstrom throughout. Arrays are C-contiguous; the caller owns every array that it passes, and nothing of it is kept
 * after the call unless the comment says so. Every function that can fail returns a status; mtp_last_error() then says what was wrong,
 * where, and what to do. Nothing is printed, nothing ends the process, no exception leaves the library. A potential may be read from
 * several threads at once, but not while another thread changes it.
 *
 * The lines between the two MTP_CFFI marks are read by Python's cffi as they are: declarations only, no preprocessor.
 */
#ifndef MTP_H
#define MTP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* MTP_CFFI begin */

typedef enum {
  MTP_SUCCESS = 0,
  MTP_ERROR_FORMAT = 1,       /* a file or table contradicts the format */
  MTP_ERROR_FILE = 2,         /* a file cannot be opened, read or written */
  MTP_ERROR_ARGUMENT = 3,     /* an argument is out of its range */
  MTP_ERROR_INCOMPATIBLE = 4, /* two things do not belong together */
  MTP_ERROR_NUMERICAL = 5,    /* singular, coinciding atoms, not finite */
  MTP_ERROR_DEAD_HANDLE = 6,  /* the pair style that a handle names is gone */
  MTP_ERROR_INTERNAL = 7      /* anything else, out of memory included */
} mtp_status;

/* Changes with any change of this file that breaks a caller. */
int32_t mtp_abi_version(void);

/* The message of the last error in the calling thread; valid until that thread's next call. Never NULL. */
const char *mtp_last_error(void);

/* ---- potentials ---------------------------------------------------------------------------------------------------------------- */

/* A moment tensor potential with its plan of evaluation and, perhaps, an active set. Freed with mtp_potential_free. */
typedef struct mtp_potential mtp_potential;

typedef struct {
  int32_t level;        /* of the basis, 2 ... 40 */
  int32_t n_species;    /* >= 1 */
  int32_t n_chebyshev;  /* radial basis size, >= 1 */
  double min_distance;  /* Angstrom; maps the radial interval */
  double cutoff;        /* Angstrom */
} mtp_form;

typedef struct {
  int32_t n_species, n_radial, n_chebyshev, n_moments, n_basic, n_products, n_scalar;
  int32_t n_parameters;     /* radial, species, moment coefficients, in this order */
  int32_t trained;          /* 1 where there are coefficients */
  int32_t active_set_mode;  /* -1: no active set, 0: neighbourhood, 1: configuration */
  double min_distance, cutoff, scaling;
} mtp_facts;

/* Reads .mtp, .almtp (MLIP-3) or .als (MLIP-2). On success *potential is to be freed by the caller. */
mtp_status mtp_potential_load(const char *path, mtp_potential **potential);

/* Makes an untrained potential. */
mtp_status mtp_potential_new(const mtp_form *form, mtp_potential **potential);
mtp_status mtp_potential_copy(const mtp_potential *potential, mtp_potential **copy);

/* Writes the potential as .mtp text, with the active set behind it (.almtp) where with_active_set is 1. All or nothing. */
mtp_status mtp_potential_save(const mtp_potential *potential, const char *path, int32_t with_active_set);
void mtp_potential_free(mtp_potential *potential);
mtp_status mtp_potential_facts(const mtp_potential *potential, mtp_facts *facts);

/* Element names, separated by commas ("Si,O"; empty where there are none). get: valid until the potential changes or is freed. */
mtp_status mtp_potential_get_elements(const mtp_potential *potential, const char **elements);
mtp_status mtp_potential_set_elements(mtp_potential *potential, const char *elements);

/* theta: [n_parameters]. Setting drops the active set, whose rows depend on the parameters. */
mtp_status mtp_potential_get_parameters(const mtp_potential *potential, double *theta);
mtp_status mtp_potential_set_parameters(mtp_potential *potential, const double *theta);
mtp_status mtp_potential_set_scaling(mtp_potential *potential, double scaling);

/* The short-range guard. distances: [n_species][n_species][4], symmetric in the species, for each pair four distances in Angstrom: inner and
 * outer of the ZBL repulsion, then inner and outer of the fade of the radial functions; 0 <= inner < outer <= cutoff. Between inner and outer
 * the repulsion is switched off and the radial functions are switched on. set: NULL takes the guard away; the potential must name its
 * elements, whose nuclear charges act; drops the active set. get: fills distances where they are not NULL and there is a guard; *present is 1
 * where there is one, else 0. */
mtp_status mtp_potential_set_guard(mtp_potential *potential, const double *distances);
mtp_status mtp_potential_get_guard(const mtp_potential *potential, double *distances, int32_t *present);

/* ---- evaluation ---------------------------------------------------------------------------------------------------------------- */

/* The neighbourhoods of the atoms of one or several configurations, those of each in a row (full lists; the same neighbour may come several times as
 * different images). An atom's neighbours belong to its own configuration. */
typedef struct {
  int64_t n_configurations;   /* >= 1 */
  const int64_t *first_atom; /* [n_configurations + 1]: the atoms of configuration c are first_atom[c] ... first_atom[c + 1] - 1 */
  int64_t n_atoms;           /* = first_atom[n_configurations] */
  const int32_t *species;    /* [n_atoms], 0 ... n_species - 1 */
  const int64_t *first;      /* [n_atoms + 1]: the pairs of atom i are first[i] ... first[i + 1] - 1 */
  const int32_t *neighbour;  /* [n_pairs]: index of the neighbour j */
  const double *vectors;     /* [n_pairs][3]: r_ij = r_j - r_i; pairs at or beyond the cutoff are ignored */
} mtp_neighbourhoods;

/* energies: [n_atoms] site energies; forces: [n_atoms][3]; virial: [n_configurations][9], W_ab = sum_ij (r_ij)_a dV_i/d(r_ij)_b = volume times ASE's stress,
 * row-major and symmetric. */
mtp_status mtp_evaluate(const mtp_potential *potential, const mtp_neighbourhoods *atoms, double *energies, double *forces, double *virial);

/* Any number of configurations, their atoms numbered through all of them. */
typedef struct {
  int64_t n_configurations;
  const int64_t *first_atom; /* [n_configurations + 1], from 0: the atoms of configuration k are first_atom[k] ... first_atom[k + 1] - 1 */
  const int32_t *species;    /* [n_atoms]; mtp_find_neighbours does not read it */
  const double *positions;   /* [n_atoms][3] */
  const double *cells;       /* [n_configurations][3][3]: rows a, b, c; one that is not periodic need only be finite */
  const int32_t *periodic;   /* [n_configurations][3]: 1 where the direction is periodic */
} mtp_configurations;

/* Finds all neighbours closer than the cutoff (Angstrom). first: [n_atoms + 1], always filled as in mtp_neighbourhoods; neighbour:
 * [capacity] and vectors: [capacity][3], filled where the capacity holds all first[n_atoms] pairs. */
mtp_status mtp_find_neighbours(const mtp_configurations *configurations, double cutoff, int64_t capacity, int64_t *first, int32_t *neighbour,
                               double *vectors);

/* Finds neighbours and evaluates. energies and forces as above, of all atoms; virials: [n_configurations][9]. Some thousand atoms a call
 * are best: few of them are evaluated in groups that are not full, and the pairs stay in the cache. */
mtp_status mtp_evaluate_configurations(const mtp_potential *potential, const mtp_configurations *configurations, double *energies,
                                       double *forces, double *virials);

/* rows: [n_atoms][n_parameters], dV_i/dtheta. */
mtp_status mtp_parameter_gradient(const mtp_potential *potential, const mtp_neighbourhoods *atoms, double *rows);

/* Observables of a configuration of N atoms, 7 + 3 N in a row: energy, forces [N][3], virial xx yy zz yz xz xy.
 * jacobian: [sum of 7 + 3 N][n], their derivatives by n parameters. linear_only 0: all, n = n_parameters; 1: the species and moment coefficients, of
 * which observables are linear functions, n = n_species + n_scalar. */
mtp_status mtp_jacobian(const mtp_potential *potential, const mtp_neighbourhoods *atoms, int32_t linear_only, double *jacobian);

/* Weighted square errors of the observables: errors[0 ... 2] = sum of weight (predicted - reference)^2 over energies, forces, virials; where gradient
 * is not NULL, gradient[n_parameters] = d(errors[0] + errors[1] + errors[2])/dtheta. reference, weights: [sum of 7 + 3 N]. */
mtp_status mtp_square_errors(const mtp_potential *potential, const mtp_neighbourhoods *atoms, const double *reference, const double *weights,
                             double *errors, double *gradient);

/* ---- active set ---------------------------------------------------------------------------------------------------------------- */

/* grades: [n_atoms] in neighbourhood mode; [n_configurations] in configuration mode. */
mtp_status mtp_grade(const mtp_potential *potential, const mtp_neighbourhoods *atoms, double *grades);

/* Offers rows [n_rows][n_parameters] to the active set, which is begun anew where the potential has none or one of another mode
 * (0: neighbourhood, 1: configuration). slots: [n_parameters], the row that now stands in each place of the active set, -1 where it did
 * not change. n_swaps may be NULL. */
mtp_status mtp_select(mtp_potential *potential, int32_t mode, int64_t n_rows, const double *rows, double threshold, int64_t *slots, int64_t *n_swaps);

/* The active set's rows A [n_parameters][n_parameters]. set: the inverse is computed. */
mtp_status mtp_active_set_get(const mtp_potential *potential, double *rows);
mtp_status mtp_active_set_set(mtp_potential *potential, int32_t mode, const double *rows);

/* ---- live pair styles ---------------------------------------------------------------------------------------------------------- */

/* Every `mtp` pair style that lives in this process has a handle, a number that is never used again. A handle whose pair style is gone
 * gives MTP_ERROR_DEAD_HANDLE. All calls act on this process (MPI rank) alone: to keep ranks equal, call on every rank alike. */

typedef struct {
  uint64_t lammps;     /* address of the LAMMPS object that owns the pair style */
  int64_t version;     /* counts the potentials that it has been given */
  int64_t n_flagged;   /* configurations or neighbourhoods kept */
  int64_t n_dropped;   /* those that exceeded `select` but are not kept: the buffer holds more extrapolative ones */
  int64_t break_step;  /* the step at which a grade passed `break_above` and the run was stopped, -1 if none */
  double highest_grade; /* over all ranks, since the last mtp_live_clear */
  int64_t histogram[10]; /* graded steps since then, by the highest grade of each, up to 1.001 (known), 1.5, 2, 3, 5, 10, 20, 50, 100, and above */
} mtp_live_facts;

/* handles: [capacity]; n: how many there are (may exceed capacity). */
mtp_status mtp_live_list(int32_t capacity, int64_t *handles, int32_t *n);
mtp_status mtp_live_get_facts(int64_t handle, mtp_live_facts *facts);

/* From now on: whenever grades are computed (every so many steps, asked by `fix pair`), what exceeds select_above is kept, and the run ends at that
 * step where the highest grade over all ranks exceeds break_above. select_above <= 0 ends the watch. capacity: kept at most, those with the highest
 * grades of the run.
 *
 * radius <= 0, or an active set of configuration mode: the whole configuration is kept where its highest grade exceeds select_above. Else
 * neighbourhoods are kept: of each centre, an atom whose grade exceeds select_above, all atoms and images within radius (Angstrom). The centres of a
 * step are taken by descending grade, at most MTP_CENTRES_PER_STEP, none closer than the potential's cutoff to one taken before. The same are kept for
 * any number of ranks. */
enum { MTP_CENTRES_PER_STEP = 16 };
mtp_status mtp_live_watch(int64_t handle, double select_above, double break_above, int64_t capacity, double radius);

/* This rank's atoms of what is kept under `index`. */
typedef struct {
  int64_t step;
  int64_t centre;       /* tag of the neighbourhood's centre; -1: a whole configuration */
  int64_t n_atoms;      /* on this rank */
  double grade;         /* the centre's; of a configuration the highest, over all ranks */
  double cell[9];       /* rows a, b, c */
  double origin[3];
  int32_t periodic[3];
} mtp_flagged;

/* flagged: what it is. Where the arrays are not NULL they are filled: tags [n_atoms] (LAMMPS atom IDs), species [n_atoms] (0 ..., -1: of another
 * style), positions [n_atoms][3] (of a neighbourhood: from its centre), grades [n_atoms]. */
mtp_status mtp_live_get_flagged(int64_t handle, int64_t index, mtp_flagged *flagged, int64_t *tags, int32_t *species, double *positions, double *grades);

/* Forgets what is kept, the highest grade and the break. */
mtp_status mtp_live_clear(int64_t handle);

/* Puts a copy of the potential (with its active set) into the pair style. It must have the same basis, cutoff and species, and a guard
 * or an active set where the running one has one. Takes effect at the next force computation: begin the next run with a setup. */
mtp_status mtp_live_set_potential(int64_t handle, const mtp_potential *potential);

/* MTP_CFFI end */

#ifdef __cplusplus
}
#endif

#endif
