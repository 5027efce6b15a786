// SPDX-License-Identifier: BSD-3-Clause
#include "guard.hpp"

#include "error.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>

namespace mtp {
namespace {

constexpr double squared_charge = 14.3996454784;    // e^2 / (4 pi epsilon_0), eV Angstrom

const char *const symbols[] = {"H",  "He", "Li", "Be", "B",  "C",  "N",  "O",  "F",  "Ne", "Na", "Mg", "Al", "Si", "P",  "S",  "Cl", "Ar", "K",  "Ca",
                               "Sc", "Ti", "V",  "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",  "Zr",
                               "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I",  "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd",
                               "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W",  "Re", "Os", "Ir", "Pt", "Au", "Hg",
                               "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U",  "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm",
                               "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og"};

[[noreturn]] void fail(const std::string &what)
{
  throw Error(Error::Kind::format, "guard: " + what);
}

int nuclear_charge(const std::string &element)
{
  const auto found = std::find(std::begin(symbols), std::end(symbols), element);
  if (found == std::end(symbols)) fail("'" + element + "' is no element's symbol: its nuclear charge is not known");
  return static_cast<int>(found - std::begin(symbols)) + 1;
}

std::string pair_name(int i, int j)
{
  return std::to_string(i) + "-" + std::to_string(j);
}

std::string shortest_text(double value)
{
  char buffer[64];
  return std::string(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr);
}

// Takes `expected` and a number from the text.
template <class Number> Number take(const std::string &text, std::size_t &at, const char *expected)
{
  const std::string separator = expected;
  Number value{};
  if (text.compare(at, separator.size(), separator) == 0) {
    const char *first = text.data() + at + separator.size(), *last = text.data() + text.size();
    const auto result = std::from_chars(first, last, value);
    if (result.ec == std::errc()) {
      at = static_cast<std::size_t>(result.ptr - text.data());
      return value;
    }
  }
  fail("expected " + (separator.empty() ? "" : "'" + separator + "' and ") + "a number at '" + text.substr(at, 40) + "'");
}

}    // namespace

bool Guard::passes(double cutoff) const
{
  const double limit = cutoff * (1 + 1e-14);
  return std::any_of(pairs.begin(), pairs.end(), [&](const PairGuard &pair) { return std::max(pair.repulsion.outer, pair.fade.outer) > limit; });
}

bool Guard::acts_in_training_range() const
{
  return std::any_of(pairs.begin(), pairs.end(), [](const PairGuard &pair) { return pair.repulsion.outer > pair.fade.outer; });
}

void Guard::check(const std::vector<std::string> &elements, int n_species) const
{
  if (elements.empty()) fail("the potential names no elements, so that the nuclear charges are not known: name them first");
  for (const auto &element : elements) nuclear_charge(element);
  if (pairs.size() != static_cast<std::size_t>(n_species) * n_species) fail("its table does not belong to " + std::to_string(n_species) + " species");
  for (int i = 0; i < n_species; i++)
    for (int j = 0; j < n_species; j++) {
      const PairGuard &pair = pairs[i * n_species + j];
      for (const Window &window : {pair.repulsion, pair.fade})
        if (!(window.inner >= 0 && window.outer > window.inner && std::isfinite(window.outer)))
          fail("the distances of the pair " + pair_name(i, j) + " are not finite and in order, 0 <= inner < outer: " + shortest_text(window.inner) +
               " and " + shortest_text(window.outer));
      if (!(pair == pairs[j * n_species + i])) fail("the distances of the pairs " + pair_name(i, j) + " and " + pair_name(j, i) + " differ");
    }
}

std::string text_of(const Guard &guard, int n_species)
{
  std::string text;
  for (int i = 0; i < n_species; i++)
    for (int j = i; j < n_species; j++) {
      const PairGuard &pair = guard.pairs[i * n_species + j];
      text += (text.empty() ? "" : ";") + pair_name(i, j);
      const char *separator = ":";
      for (double distance : {pair.repulsion.inner, pair.repulsion.outer, pair.fade.inner, pair.fade.outer}) {
        text += separator + shortest_text(distance);
        separator = ",";
      }
    }
  return text;
}

Guard parse_guard(const std::string &text, int n_species)
{
  Guard guard;
  guard.pairs.resize(static_cast<std::size_t>(n_species) * n_species);
  std::size_t at = 0;
  for (int i = 0; i < n_species; i++)
    for (int j = i; j < n_species; j++) {
      const int found_i = take<int>(text, at, at == 0 ? "" : ";"), found_j = take<int>(text, at, "-");
      if (found_i != i || found_j != j) fail("expected the pair " + pair_name(i, j) + ", found " + pair_name(found_i, found_j));
      PairGuard pair;
      pair.repulsion.inner = take<double>(text, at, ":");
      pair.repulsion.outer = take<double>(text, at, ",");
      pair.fade.inner = take<double>(text, at, ",");
      pair.fade.outer = take<double>(text, at, ",");
      guard.pairs[i * n_species + j] = guard.pairs[j * n_species + i] = pair;
    }
  if (at != text.size()) fail("unexpected '" + text.substr(at, 40) + "' after the last pair");
  return guard;
}

Repulsion repulsion_between(const std::string &element_i, const std::string &element_j, const Window &window)
{
  const double z_i = nuclear_charge(element_i), z_j = nuclear_charge(element_j);
  return {window, z_i * z_j * squared_charge, (std::pow(z_i, 0.23) + std::pow(z_j, 0.23)) / 0.46850};
}

}    // namespace mtp
