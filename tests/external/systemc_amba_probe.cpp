// Checks cosim_amba_pv.h from inside, for tests: `master` writes with several IDs and protections, `slave` notes what arrives.
#define CSA_IMPLEMENTATION
#include "cosim_bridge.h"

#include "../../examples/evs_stand_in/amba_pv.h"

#include "cosim_amba_pv.h"

namespace {

// Bits of the control of the last write: 1 privileged, 2 non-secure, 4 instruction; reads give them. 0x100 is a SLVERR.
class Slave : public sc_core::sc_module, public amba_pv::amba_pv_slave_base {
public:
    amba_pv::amba_pv_slave_socket<64> amba_pv_s;
    explicit Slave(sc_core::sc_module_name name) : sc_module(name), amba_pv_s("amba_pv_s") { amba_pv_s.bind(*this); }

private:
    using Control = const amba_pv::amba_pv_control*;
    amba_pv::amba_pv_resp_t read(sc_dt::uint64, unsigned char* data, unsigned size, Control, sc_core::sc_time&) override {
        for (unsigned i = 0; i < size; i++) data[i] = i ? 0 : seen_;
        return amba_pv::AMBA_PV_OKAY;
    }
    amba_pv::amba_pv_resp_t write(sc_dt::uint64 addr, unsigned char*, unsigned, Control c, sc_core::sc_time&) override {
        seen_ = static_cast<unsigned char>(c->is_privileged() | c->is_non_secure() << 1 | c->is_instruction() << 2);
        return addr == 0x100 ? amba_pv::AMBA_PV_SLVERR : amba_pv::AMBA_PV_OKAY;
    }
    unsigned char seen_ = 0;
};

class Master : public sc_core::sc_module, public amba_pv::amba_pv_master_base {
public:
    amba_pv::amba_pv_master_socket<64> amba_pv_m;
    SC_HAS_PROCESS(Master);
    Master(sc_core::sc_module_name name, cosim::Bridge& bridge) : sc_module(name), amba_pv_m("amba_pv_m"), bridge_(bridge) {
        amba_pv_m.bind(*this);
        SC_THREAD(checks);
    }

private:
    void expect(bool good, const char* what) {
        ++bridge_.count("checks");
        if (!good) bridge_.fail(std::string("check failed: ") + what);
    }
    // Write with an ID and bits as above; the time that it takes in ns, or -1 after an error.
    int write(unsigned id, unsigned bits, uint64_t addr = 0) {
        amba_pv::amba_pv_control control;
        control.set_id(id);
        control.set_privileged(bits & 1);
        control.set_non_secure(bits & 2);
        control.set_instruction(bits & 4);
        unsigned char data[8] = {};
        sc_core::sc_time delay = sc_core::SC_ZERO_TIME;
        const uint64_t begin = bridge_.now();
        resp_ = amba_pv_m.write(addr, data, 8, &control, delay);
        return resp_ == amba_pv::AMBA_PV_OKAY ? static_cast<int>((bridge_.now() - begin) / 1000) : -1;
    }
    unsigned seen() {
        unsigned char data[8] = {};
        sc_core::sc_time delay = sc_core::SC_ZERO_TIME;
        amba_pv::amba_pv_control control;
        expect(amba_pv_m.read(0, data, 8, &control, delay) == amba_pv::AMBA_PV_OKAY, "a read is answered");
        return data[0];
    }
    void checks() {
        for (unsigned bits = 0; bits < 8; bits++) expect(write(0, bits) == 70 && seen() == bits, "AxPROT goes both ways");
        expect(write(1, 3) == 100, "the master's ID chooses the port of its StreamID");
        expect(write(2, 3) == -1 && resp_ == amba_pv::AMBA_PV_DECERR, "an ID whose StreamID no link has is a DECERR");
        expect(write(0, 3, 0x100) == -1 && resp_ == amba_pv::AMBA_PV_SLVERR, "SLVERR comes back");
    }
    cosim::Bridge& bridge_;
    amba_pv::amba_pv_resp_t resp_ = amba_pv::AMBA_PV_OKAY;
};

}  // namespace

int sc_main(int argc, char* argv[]) {
    cosim::Bridge bridge("bridge", "AMBA-PV probe");
    cosim::amba_pv_attributes(bridge, [](unsigned id) { return std::optional<uint64_t>(16 + id); });
    if (argc > 1 && std::string(argv[1]) == "sink") {
        Slave slave("slave");
        amba_pv::amba_pv_from_tlm_bridge<64> to_slave("to_slave");
        bridge.mmio_target<64>("bus").bind(to_slave.tlm_s);
        to_slave.amba_pv_m.bind(slave.amba_pv_s);
        return bridge.run();
    }
    Master master("master", bridge);
    amba_pv::amba_pv_to_tlm_bridge<64> from_master("from_master");
    master.amba_pv_m.bind(from_master.amba_pv_s);
    from_master.tlm_m.bind(bridge.mmio_initiator<64>({"dma0", "dma1"}));
    return bridge.run();
}
