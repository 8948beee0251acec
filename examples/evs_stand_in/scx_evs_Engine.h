// A stand-in for a subsystem that Fast Models exports to SystemC (EVS): a core that runs ahead of SystemC by up to the global
// quantum, and copies memory when its registers say so. Sockets and signals are those that such a subsystem has.
//
// Registers (8 bytes each): 0x00 SRC, 0x08 DST, 0x10 LEN in blocks of 64 bytes, 0x18 CTRL (1 starts, 2 takes the interrupt down),
// 0x20 STATUS (0 idle, 1 busy, 2 done, 3 error). Everything else is a SLVERR. It is the engine of examples/python_node.
#ifndef SCX_EVS_ENGINE_H
#define SCX_EVS_ENGINE_H

#include <cstring>

#include <tlm_utils/tlm_quantumkeeper.h>

#include "amba_pv.h"
#include "scx.h"

class scx_evs_Engine : public sc_core::sc_module,
                       public amba_pv::amba_pv_slave_base,
                       public amba_pv::amba_pv_master_base,
                       public amba_pv::signal_slave_base<bool> {
public:
    amba_pv::amba_pv_slave_socket<64> amba_pv_s;
    amba_pv::amba_pv_master_socket<64> amba_pv_m;
    amba_pv::signal_master_port<bool> irq_out;
    amba_pv::signal_slave_export<bool> reset_in;

    SC_HAS_PROCESS(scx_evs_Engine);
    explicit scx_evs_Engine(const sc_core::sc_module_name& name)
        : sc_module(name),
          amba_pv_s("amba_pv_s"),
          amba_pv_m("amba_pv_m"),
          irq_out("irq_out"),
          reset_in("reset_in"),
          master_id_(std::string(this->name()) + ".master_id") {
        amba_pv_s.bind(*this);
        amba_pv_m.bind(*this);
        reset_in.bind(*this);
        scx::scx_parameters()[master_id_] = 0;
        SC_THREAD(core);
        core_ = sc_core::sc_get_current_process_handle();
    }

private:
    enum : uint64_t { SRC = 0x00, DST = 0x08, LEN = 0x10, CTRL = 0x18, STATUS = 0x20 };
    enum : uint64_t { IDLE, BUSY, DONE, FAILED };
    static constexpr unsigned kBlock = 64, kStartNs = 10, kBlockNs = 4;

    // -- what the core executes

    void core() {
        core_ = sc_core::sc_get_current_process_handle();
        for (;;) {
            wait(doorbell_);
            keeper_.reset();
            run(kStartNs);
            const bool good = copy();
            keeper_.sync();  // what others see happens in SystemC's time, not ahead of it
            registers_[STATUS / 8] = good ? DONE : FAILED;
            irq_out.set_state(true);
        }
    }

    // Execute instructions for so long, ahead of SystemC within the quantum.
    void run(unsigned ns) {
        keeper_.inc(sc_core::sc_time(ns, sc_core::SC_NS));
        if (keeper_.need_sync()) keeper_.sync();
    }

    bool copy() {
        amba_pv::amba_pv_control control;
        control.set_id(static_cast<unsigned>(scx::scx_parameters()[master_id_]));
        control.set_privileged();
        control.set_non_secure();
        unsigned char data[kBlock];
        for (uint64_t block = 0; block < (registers_[LEN / 8] & 0xFF); block++) {
            sc_core::sc_time ahead = keeper_.get_local_time();
            if (amba_pv_m.read(registers_[SRC / 8] + block * kBlock, data, kBlock, &control, ahead) >=
                    amba_pv::AMBA_PV_SLVERR ||
                amba_pv_m.write(registers_[DST / 8] + block * kBlock, data, kBlock, &control, ahead) >=
                    amba_pv::AMBA_PV_SLVERR) {
                keeper_.set(ahead);
                return false;
            }
            keeper_.set(ahead);
            run(kBlockNs);
        }
        return true;
    }

    // -- registers

    amba_pv::amba_pv_resp_t read(sc_dt::uint64 addr, unsigned char* data, unsigned size, const amba_pv::amba_pv_control*,
                                 sc_core::sc_time&) override {
        if (size != 8 || addr % 8 || addr > STATUS) return amba_pv::AMBA_PV_SLVERR;
        std::memcpy(data, &registers_[addr / 8], 8);
        return amba_pv::AMBA_PV_OKAY;
    }

    amba_pv::amba_pv_resp_t write(sc_dt::uint64 addr, unsigned char* data, unsigned size, const amba_pv::amba_pv_control*,
                                  sc_core::sc_time&) override {
        if (size != 8 || addr % 8 || addr > STATUS) return amba_pv::AMBA_PV_SLVERR;
        uint64_t value;
        std::memcpy(&value, data, 8);
        if (addr == CTRL) control(value);
        else if (addr != STATUS) registers_[addr / 8] = value;
        return amba_pv::AMBA_PV_OKAY;
    }

    void control(uint64_t value) {
        if (value & 2) irq_out.set_state(false);
        if (!(value & 1) || registers_[STATUS / 8] == BUSY) return;
        registers_[STATUS / 8] = BUSY;
        doorbell_.notify();
    }

    // -- reset

    void set_state(int, const bool& level) override {
        if (!level) return;
        std::memset(registers_, 0, sizeof registers_);
        irq_out.set_state(false);
        core_.reset();
    }

    uint64_t registers_[5] = {};
    sc_core::sc_event doorbell_;
    sc_core::sc_process_handle core_;
    tlm_utils::tlm_quantumkeeper keeper_;
    std::string master_id_;
};

#endif
