// The recipe of docs/attach-fvp.md, with a subsystem of our own in place of one that Fast Models has exported: include Arm's
// headers and bind your subsystem's sockets instead, the rest stays.
#define CSA_IMPLEMENTATION
#include "cosim_bridge.h"

#include "amba_pv.h"         // Arm's: <amba_pv.h>
#include "scx_evs_Engine.h"  // Arm's: <scx/scx.h> and the generated scx_evs_TOP.h

#include "cosim_amba_pv.h"

int sc_main(int argc, char* argv[]) {
    scx::scx_initialize("engine");
    scx_evs_Engine fvp("fvp");
    scx::scx_parse_and_configure(argc, argv);
    tlm::tlm_global_quantum::instance().set(sc_core::sc_time(1, sc_core::SC_US));
    scx::scx_set_min_sync_latency(10e-9);

    cosim::Bridge bridge("bridge", "EVS stand-in 1");
    cosim::amba_pv_attributes(bridge);

    // What the subsystem asks others for, and what others ask it for.
    amba_pv::amba_pv_to_tlm_bridge<64> from_fvp("from_fvp");
    fvp.amba_pv_m.bind(from_fvp.amba_pv_s);
    from_fvp.tlm_m.bind(bridge.mmio_initiator<64>("dma"));
    amba_pv::amba_pv_from_tlm_bridge<64> to_fvp("to_fvp");
    bridge.mmio_target<64>("regs").bind(to_fvp.tlm_s);
    to_fvp.amba_pv_m.bind(fvp.amba_pv_s);

    // Lines out of it and into it.
    sc_core::sc_signal<bool> irq("irq"), reset("reset");
    amba_pv::signal_to_sc_bridge<bool> from_irq("from_irq");
    fvp.irq_out.bind(from_irq.signal_s);
    from_irq.signal_out.bind(irq);
    bridge.wire_out("irq").bind(irq);
    amba_pv::signal_from_sc_bridge<bool> to_reset("to_reset");
    bridge.wire_in("reset").bind(reset);
    to_reset.signal_in.bind(reset);
    to_reset.signal_m.bind(fvp.reset_in);

    return bridge.run();  // not sc_start()
}
