// SPDX-License-Identifier: BSD-3-Clause
#include "potential.hpp"

#include "error.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

namespace mtp {
namespace {

const char elements_key[] = "elements:", guard_key[] = "guard:";
const char plain_type[] = "RBChebyshev", guarded_type[] = "RBChebyshevZBL";    // the latter: refused by who does not know the guard
constexpr double longest_cutoff = 100;                                         // Angstrom

std::string trimmed(const std::string &text)
{
  const char *blank = " \t\r\n";
  const auto first = text.find_first_not_of(blank);
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(blank) - first + 1);
}

// Walks through the text of a file and knows the line for its messages.
class Reader {
 public:
  Reader(const std::string &p, const std::string &t, std::ptrdiff_t line = 1) : path(p), text(t), first_line(line) {}

  [[noreturn]] void fail(const std::string &what) const
  {
    const auto line = first_line + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(position), '\n');
    throw Error(Error::Kind::format, path + ":" + std::to_string(line) + ": " + what);
  }
  void skip_blank()
  {
    while (position < text.size() && std::isspace(static_cast<unsigned char>(text[position]))) position++;
  }
  std::size_t size() const { return text.size(); }
  bool at_end()
  {
    skip_blank();
    return position >= text.size();
  }
  std::string word()
  {
    skip_blank();
    const auto start = position;
    while (position < text.size() && !std::isspace(static_cast<unsigned char>(text[position])) && !std::strchr("={},", text[position])) position++;
    return text.substr(start, position - start);
  }
  std::string peek()
  {
    const auto start = position;
    std::string found = word();
    position = start;
    return found;
  }
  void expect(char c)
  {
    skip_blank();
    if (position >= text.size()) fail(std::string("expected '") + c + "', found the end of the file (truncated?)");
    if (text[position] != c) fail(std::string("expected '") + c + "', found '" + text[position] + "'");
    position++;
  }
  bool next_is(char c)
  {
    skip_blank();
    return position < text.size() && text[position] == c;
  }
  void key(const std::string &name)
  {
    const std::string found = word();
    if (found != name) fail("expected '" + name + "', found '" + found + "'");
    expect('=');
  }
  std::string rest_of_line()
  {
    const auto end = std::min(text.find('\n', position), text.size());
    const std::string found = trimmed(text.substr(position, end - position));
    position = end;
    return found;
  }
  template <class Number> Number number()
  {
    const std::string found = word();
    const char *first = found.data() + (!found.empty() && found[0] == '+');
    Number value{};
    const auto result = std::from_chars(first, found.data() + found.size(), value);
    if (found.empty() || result.ec != std::errc() || result.ptr != found.data() + found.size()) fail("expected a number, found '" + found + "'");
    if (!std::isfinite(static_cast<double>(value))) fail("'" + found + "' is not a finite number");
    return value;
  }
  int count(const std::string &name, int least, int most)
  {
    key(name);
    const int value = number<int>();
    if (value < least || value > most)
      fail(name + " = " + std::to_string(value) + " is outside " + std::to_string(least) + " to " + std::to_string(most));
    return value;
  }
  template <class Number> std::vector<Number> list(const std::string &what, std::size_t length)
  {
    std::vector<Number> values;
    expect('{');
    while (!next_is('}')) {
      if (!values.empty()) expect(',');
      values.push_back(number<Number>());
    }
    expect('}');
    if (values.size() != length) fail(what + ": expected " + std::to_string(length) + " numbers, found " + std::to_string(values.size()));
    return values;
  }
  template <class Row> void rows(const std::string &name, int length, const Row &take)
  {
    key(name);
    expect('{');
    for (int i = 0; i < length; i++) {
      if (i > 0) expect(',');
      take(list<int>(name + " row " + std::to_string(i), 4));
    }
    if (!next_is('}')) fail(name + ": more rows than the " + std::to_string(length) + " announced");
    expect('}');
  }

 private:
  std::string path;
  const std::string &text;
  std::ptrdiff_t first_line;
  std::size_t position = 0;
};

// The guard's word is free text to other readers: they evaluate the file as it is where the guard does nothing.
void read_tag(Reader &in, Potential &potential)
{
  std::istringstream words(in.rest_of_line());
  std::string guard;
  std::string word;
  while (words >> word) {
    if (word.rfind(elements_key, 0) == 0) {
      std::istringstream names(word.substr(std::strlen(elements_key)));
      std::string name;
      while (std::getline(names, name, ',')) potential.elements.push_back(name);
    } else if (word.rfind(guard_key, 0) == 0) {
      if (!guard.empty()) in.fail("guard: given twice");
      guard = word;
    } else {
      potential.tag += (potential.tag.empty() ? "" : " ") + word;
    }
  }
  if (guard.empty()) return;
  try {
    potential.guard = parse_guard(guard.substr(std::strlen(guard_key)), potential.n_species);
    potential.guard->check(potential.elements, potential.n_species);
  } catch (const Error &error) {
    in.fail(error.what());
  }
}

void read_radial_coeffs(Reader &in, Potential &potential)
{
  const int S = potential.n_species, K = potential.n_radial(), R = potential.n_chebyshev;
  const double announced = 1.0 * S * S * K * R;
  if (2 * announced > static_cast<double>(in.size()))    // a number and its separator take two bytes at least
    in.fail("radial_coeffs: the counts announce more numbers than the file can hold");
  potential.radial_coeffs.assign(potential.n_radial_coeffs(), 0.0);
  std::vector<bool> given(static_cast<std::size_t>(S) * S, false);
  for (int block = 0; block < S * S; block++) {
    const std::string pair = in.word();
    const char *end = pair.data() + pair.size();
    int i = -1, j = -1;
    auto parsed = std::from_chars(pair.data(), end, i);
    if (parsed.ptr != end && *parsed.ptr == '-') parsed = std::from_chars(parsed.ptr + 1, end, j);
    if (parsed.ptr != end || i < 0 || i >= S || j < 0 || j >= S) in.fail("expected a pair of species as '0-0', found '" + pair + "'");
    if (given[i * S + j]) in.fail("radial_coeffs names the pair of species " + pair + " twice");
    given[i * S + j] = true;
    for (int mu = 0; mu < K; mu++) {
      const auto row = in.list<double>("radial_coeffs " + pair, R);
      std::copy(row.begin(), row.end(), &potential.radial_coeffs[((i * S + j) * K + mu) * R]);
    }
  }
}

const char *type_of(const Potential &potential)
{
  return potential.guard && potential.guard->acts_in_training_range() ? guarded_type : plain_type;
}

Potential read_text(const std::string &path, const std::string &text)
{
  Reader in(path, text);
  Potential potential;
  if (in.word() != "MTP") in.fail("not a moment tensor potential: the first line must be 'MTP'");
  in.key("version");
  if (const std::string version = in.word(); version != "1.1.0") in.fail("version " + version + " is not known; 1.1.0 is");
  if (in.peek() == "potential_name") {
    in.key("potential_name");
    potential.name = in.rest_of_line();
  }
  if (in.peek() == "scaling") {
    in.key("scaling");
    potential.scaling = in.number<double>();
  }
  potential.n_species = in.count("species_count", 1, 1000);
  if (in.peek() == "potential_tag") {
    in.key("potential_tag");
    read_tag(in, potential);
  }
  in.key("radial_basis_type");
  const std::string type = in.word(), expected = type_of(potential);
  if (type != plain_type && type != guarded_type)
    in.fail("radial_basis_type " + type + " is not supported; " + plain_type + " is. Refit the potential with it");
  if (type != expected)
    in.fail("radial_basis_type " + type + " does not fit the guard in potential_tag, which makes it " + expected + ": the tag is damaged or lost");
  if (in.peek() == "scaling") {
    in.key("scaling");
    potential.scaling *= in.number<double>();
  }
  in.key("min_dist");
  potential.min_distance = in.number<double>();
  in.key("max_dist");
  potential.cutoff = in.number<double>();
  if (potential.guard && potential.guard->passes(potential.cutoff)) in.fail("the guard in potential_tag reaches beyond max_dist");
  potential.n_chebyshev = in.count("radial_basis_size", 1, 1000);
  potential.basis.n_radial = in.count("radial_funcs_count", 1, 1000);
  if (in.peek() == "radial_coeffs") {
    in.word();
    read_radial_coeffs(in, potential);
    potential.trained = true;
  }
  Basis &basis = potential.basis;
  basis.n_moments = in.count("alpha_moments_count", 1, 100000000);
  const int n_basic = in.count("alpha_index_basic_count", 1, basis.n_moments);
  in.rows("alpha_index_basic", n_basic, [&](const std::vector<int> &r) { basis.basic.push_back({r[0], r[1], r[2], r[3]}); });
  const int n_products = in.count("alpha_index_times_count", 0, 100000000);
  in.rows("alpha_index_times", n_products, [&](const std::vector<int> &r) { basis.products.push_back({r[0], r[1], r[2], r[3]}); });
  const int n_scalar = in.count("alpha_scalar_moments", 1, basis.n_moments);
  in.key("alpha_moment_mapping");
  basis.scalars = in.list<int>("alpha_moment_mapping", n_scalar);
  if (potential.trained) {
    in.key("species_coeffs");
    potential.species_coeffs = in.list<double>("species_coeffs", potential.n_species);
    in.key("moment_coeffs");
    potential.moment_coeffs = in.list<double>("moment_coeffs", n_scalar);
  }
  if (!in.at_end()) in.fail("unexpected '" + in.word() + "' after the end of the potential");
  potential.check(path);
  return potential;
}

// The binary tail of .als and .almtp: A, then (A^-1)^T. MLIP-2's selected configurations may follow; they are not needed.
void read_matrices(const std::string &path, const std::string &bytes, std::size_t start, Potential &potential, ActiveSetMode mode)
{
  if (!potential.trained) throw Error(Error::Kind::format, path + ": an active set follows a potential without coefficients");
  ActiveSet set;
  set.mode = mode;
  set.n = potential.n_parameters();
  const std::size_t size = static_cast<std::size_t>(set.n) * set.n;
  if (bytes.size() < start + 2 * size * sizeof(double))
    throw Error(Error::Kind::format, path + ": the active set is truncated or does not belong to this potential: " + std::to_string(set.n) +
                                         " parameters need " + std::to_string(2 * size * sizeof(double)) + " bytes, found " +
                                         std::to_string(bytes.size() - std::min(bytes.size(), start)));
  set.rows.resize(size);
  set.inverse_transposed.resize(size);
  std::memcpy(set.rows.data(), &bytes[start], size * sizeof(double));
  std::memcpy(set.inverse_transposed.data(), &bytes[start + size * sizeof(double)], size * sizeof(double));
  set.check(path);
  potential.active_set = std::move(set);
}

ActiveSetMode mode_from_weights(const std::string &path, double energy, double site)
{
  if (site == 1 && energy == 0) return ActiveSetMode::neighbourhood;
  if (energy == 1 && site == 0) return ActiveSetMode::configuration;
  throw Error(Error::Kind::format, path + ": the active set was built with weights of forces, stresses or several kinds; "
                                          "only energy_weight 1 (configuration) or site_en_weight 1 (neighbourhood) is supported");
}

std::string formatted(double value)
{
  char buffer[64];
  return std::string(buffer, std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific, 15).ptr);
}

template <class Values> std::string joined(const Values &values, std::size_t first, std::size_t count)
{
  std::string text = "{";
  for (std::size_t i = first; i < first + count; i++) {
    if (i > first) text += ", ";
    text += formatted(values[i]);
  }
  return text + "}";
}

std::string text_of(const Potential &potential)
{
  std::ostringstream out;
  out.imbue(std::locale::classic());
  const int S = potential.n_species, K = potential.n_radial(), R = potential.n_chebyshev;
  std::string tag = potential.tag;
  if (!potential.elements.empty()) {
    tag += std::string(tag.empty() ? "" : " ") + elements_key;
    for (std::size_t z = 0; z < potential.elements.size(); z++) tag += (z ? "," : "") + potential.elements[z];
  }
  if (potential.guard) tag += std::string(" ") + guard_key + text_of(*potential.guard, S);
  out << "MTP\nversion = 1.1.0\npotential_name = " << potential.name << "\nscaling = " << formatted(potential.scaling) << "\nspecies_count = " << S
      << "\npotential_tag = " << tag << "\nradial_basis_type = " << type_of(potential) << "\n\tmin_dist = " << formatted(potential.min_distance)
      << "\n\tmax_dist = " << formatted(potential.cutoff) << "\n\tradial_basis_size = " << R << "\n\tradial_funcs_count = " << K << "\n";
  if (potential.trained) {
    out << "\tradial_coeffs\n";
    for (int i = 0; i < S; i++)
      for (int j = 0; j < S; j++) {
        out << "\t\t" << i << "-" << j << "\n";
        for (int mu = 0; mu < K; mu++) out << "\t\t\t" << joined(potential.radial_coeffs, ((i * S + j) * K + mu) * R, R) << "\n";
      }
  }
  const Basis &basis = potential.basis;
  out << "alpha_moments_count = " << basis.n_moments << "\nalpha_index_basic_count = " << basis.n_basic() << "\nalpha_index_basic = {";
  const char *separator = "";
  for (const auto &m : basis.basic) {
    out << separator << "{" << m.mu << ", " << m.a << ", " << m.b << ", " << m.c << "}";
    separator = ", ";
  }
  out << "}\nalpha_index_times_count = " << basis.products.size() << "\nalpha_index_times = {";
  separator = "";
  for (const auto &r : basis.products) {
    out << separator << "{" << r.p << ", " << r.q << ", " << r.coefficient << ", " << r.t << "}";
    separator = ", ";
  }
  out << "}\nalpha_scalar_moments = " << basis.n_scalar() << "\nalpha_moment_mapping = {";
  separator = "";
  for (int s : basis.scalars) {
    out << separator << s;
    separator = ", ";
  }
  out << "}";
  if (potential.trained)
    out << "\nspecies_coeffs = " << joined(potential.species_coeffs, 0, potential.species_coeffs.size())
        << "\nmoment_coeffs = " << joined(potential.moment_coeffs, 0, potential.moment_coeffs.size());
  return out.str();
}

}    // namespace

void Potential::get_parameters(double *theta) const
{
  if (!trained) throw Error(Error::Kind::argument, "the potential is not trained: it has no coefficients");
  theta = std::copy(radial_coeffs.begin(), radial_coeffs.end(), theta);
  theta = std::copy(species_coeffs.begin(), species_coeffs.end(), theta);
  std::copy(moment_coeffs.begin(), moment_coeffs.end(), theta);
}

void Potential::set_parameters(const double *theta)
{
  for (int i = 0; i < n_parameters(); i++)
    if (!std::isfinite(theta[i])) throw Error(Error::Kind::argument, "parameter " + std::to_string(i) + " is not finite");
  radial_coeffs.assign(theta, theta + n_radial_coeffs());
  species_coeffs.assign(theta + n_radial_coeffs(), theta + n_radial_coeffs() + n_species);
  moment_coeffs.assign(theta + n_radial_coeffs() + n_species, theta + n_parameters());
  trained = true;
  active_set.reset();
}

void Potential::set_guard(std::optional<Guard> next)
{
  if (next) {
    try {
      next->check(elements, n_species);
    } catch (const Error &error) {
      throw Error(Error::Kind::argument, error.what());
    }
    if (next->passes(cutoff)) throw Error(Error::Kind::argument, "guard: it reaches beyond the cutoff");
  }
  guard = std::move(next);
  active_set.reset();
}

bool Potential::same_form_as(const Potential &other) const
{
  return n_species == other.n_species && elements == other.elements && n_chebyshev == other.n_chebyshev && cutoff == other.cutoff &&
         min_distance == other.min_distance && basis == other.basis && guard.has_value() == other.guard.has_value();
}

void Potential::check(const std::string &where) const
{
  const auto fail = [&](const std::string &what) { throw Error(Error::Kind::format, where + ": " + what); };
  if (!(cutoff > min_distance) || min_distance < 0 || !std::isfinite(cutoff))
    fail("the cutoff (max_dist) must be larger than min_dist, and that not negative");
  if (cutoff > longest_cutoff)
    fail("the cutoff (max_dist) is " + std::to_string(cutoff) + " Angstrom; no neighbour list holds that many atoms, check its unit");
  if (!elements.empty() && static_cast<int>(elements.size()) != n_species)
    fail("names " + std::to_string(elements.size()) + " elements for " + std::to_string(n_species) + " species");
  if (!std::isfinite(scaling) || scaling == 0) fail("scaling must be finite and not zero");
  if (1.0 * n_species * n_species * n_radial() * n_chebyshev > 1e8)
    fail("more than 1e8 radial coefficients: check the numbers of species and of functions");
  basis.check(where);
}

Potential read_potential(const std::string &path)
{
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(Error::Kind::file, path + ": cannot be opened: " + std::strerror(errno));
  std::string bytes;
  try {
    bytes.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  } catch (const std::ios_base::failure &) {
    throw Error(Error::Kind::file, path + ": cannot be read: " + std::strerror(errno));
  }

  const auto almtp = bytes.find("\n#MVS_v1.1");
  const auto als = bytes.find("\n^");
  if (almtp != std::string::npos) {
    Potential potential = read_text(path, bytes.substr(0, almtp));
    const auto end = bytes.find('#', almtp + 2);
    if (end == std::string::npos) throw Error(Error::Kind::format, path + ": the active set is truncated: no '#' after its weights");
    const std::string header = bytes.substr(almtp + std::strlen("\n#MVS_v1.1"), end - almtp - std::strlen("\n#MVS_v1.1"));
    Reader in(path, header, 2 + std::count(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(almtp), '\n'));
    double energy = 0, site = 0;
    while (!in.at_end()) {
      const std::string key = in.word();
      if (key == "energy_weight") energy = in.number<double>();
      else if (key == "site_en_weight") site = in.number<double>();
      else if (key == "force_weight" || key == "stress_weight" || key == "weight_scaling") {
        const double other = in.number<double>();
        if (key != "weight_scaling" && other != 0) site = energy = -1;
      } else in.fail("unknown word '" + key + "' in the header of the active set");
    }
    read_matrices(path, bytes, end + 1, potential, mode_from_weights(path, energy, site));
    return potential;
  }
  if (als != std::string::npos) {
    Potential potential = read_text(path, bytes.substr(0, als));
    const std::size_t start = als + 2, length = 4 * sizeof(double);
    double weights[4];    // neighbourhood, energy, force, stress
    if (bytes.size() < start + length + 2) throw Error(Error::Kind::format, path + ": the active set is truncated");
    std::memcpy(weights, &bytes[start], length);
    if (bytes.compare(start + length, 2, "\n#") != 0) throw Error(Error::Kind::format, path + ": no '#' after the weights of the active set");
    const bool mixed = weights[2] != 0 || weights[3] != 0;
    read_matrices(path, bytes, start + length + 2, potential, mode_from_weights(path, mixed ? -1 : weights[1], weights[0]));
    return potential;
  }
  return read_text(path, bytes);
}

void write_potential(const Potential &potential, const std::string &path, bool with_active_set)
{
  potential.check(path);
  if (with_active_set && !potential.active_set)
    throw Error(Error::Kind::argument, path + ": the potential has no active set to write; `mtp select` builds one");
  const std::string partial = path + ".partial";
  {
    std::ofstream file(partial, std::ios::binary | std::ios::trunc);
    if (!file) throw Error(Error::Kind::file, path + ": cannot be written: " + std::strerror(errno));
    file << text_of(potential);
    if (with_active_set) {
      const ActiveSet &set = *potential.active_set;
      const bool whole = set.mode == ActiveSetMode::configuration;
      file << "\n#MVS_v1.1\nenergy_weight " << (whole ? 1 : 0) << "\nforce_weight 0\nstress_weight 0\nsite_en_weight " << (whole ? 0 : 1)
           << "\nweight_scaling 1\n#";
      for (const auto *matrix : {&set.rows, &set.inverse_transposed})
        file.write(reinterpret_cast<const char *>(matrix->data()), static_cast<std::streamsize>(matrix->size() * sizeof(double)));
    }
    file.close();
    if (!file) {
      const std::string reason = std::strerror(errno);
      std::remove(partial.c_str());
      throw Error(Error::Kind::file, path + ": cannot be written: " + reason);
    }
  }
  if (std::rename(partial.c_str(), path.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    std::remove(partial.c_str());
    throw Error(Error::Kind::file, path + ": cannot be replaced: " + reason);
  }
}

}    // namespace mtp
