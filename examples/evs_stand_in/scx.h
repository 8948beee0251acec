// A stand-in for the functions of Fast Models' scx namespace that the recipe calls: names and order of calls are Arm's.
#ifndef SCX_H
#define SCX_H

#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>

#include <systemc>

namespace scx {

inline std::string& scx_simulation() {
    static std::string id;
    return id;
}
inline std::map<std::string, uint64_t>& scx_parameters() {
    static std::map<std::string, uint64_t> parameters;
    return parameters;
}
inline double& scx_min_sync_latency() {
    static double seconds = 0;
    return seconds;
}

// Once, before a subsystem is made.
inline void scx_initialize(const std::string& id) { scx_simulation() = id; }

// Parameters of subsystems, which exist already: -C INSTANCE.NAME=VALUE.
inline void scx_parse_and_configure(int argc, char* argv[]) {
    for (int i = 1; i < argc; i++) {
        const std::string text = std::string(argv[i]) == "-C" && i + 1 < argc ? argv[++i] : "";
        const size_t equals = text.find('=');
        auto found = equals == std::string::npos ? scx_parameters().end() : scx_parameters().find(text.substr(0, equals));
        if (found == scx_parameters().end())
            throw std::invalid_argument(std::string(argv[i]) + ": expected -C INSTANCE.NAME=VALUE of a known parameter");
        found->second = std::strtoull(text.c_str() + equals + 1, nullptr, 0);
    }
}

// The least time (s) that a core runs between two synchronisations with SystemC.
inline void scx_set_min_sync_latency(double seconds) { scx_min_sync_latency() = seconds; }

}  // namespace scx
#endif
