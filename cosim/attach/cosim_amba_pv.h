/* cosim_amba_pv.h: what AMBA-PV transactions of an Arm Fast Models subsystem (EVS) carry, for cosim_bridge.h. C++17.
 *
 *     #include <amba_pv.h>                       // Arm's
 *     #include "cosim_bridge.h"
 *     #include "cosim_amba_pv.h"
 *     ...
 *     cosim::amba_pv_attributes(bridge);         // before bridge.run()
 *
 * AxPROT goes both ways: privileged, non_secure and instruction of amba_pv_control. Its id is the master's; give a function to make
 * a StreamID of it, with which the bridge chooses the port (see cosim::Attributes). docs/attach-fvp.md is the recipe.
 */
#ifndef COSIM_AMBA_PV_H
#define COSIM_AMBA_PV_H

#include "cosim_bridge.h"

namespace cosim {

inline void amba_pv_attributes(Bridge& bridge, std::function<std::optional<uint64_t>(unsigned)> stream_of = nullptr) {
    const auto in = [](tlm::tlm_generic_payload& trans, Attributes& a) {
        auto* control = new amba_pv::amba_pv_extension(); /* the payload frees it */
        control->set_privileged((a.attr & CSA_PRIVILEGED) != 0);
        control->set_non_secure((a.attr & CSA_NONSECURE) != 0);
        control->set_instruction((a.attr & CSA_INSTRUCTION) != 0);
        trans.set_extension(control);
    };
    const auto out = [stream_of = std::move(stream_of)](tlm::tlm_generic_payload& trans, Attributes& a) {
        const auto* control = trans.get_extension<amba_pv::amba_pv_extension>();
        if (!control) return;
        a.attr = 0;
        if (control->is_privileged()) a.attr |= CSA_PRIVILEGED;
        if (control->is_non_secure()) a.attr |= CSA_NONSECURE;
        if (control->is_instruction()) a.attr |= CSA_INSTRUCTION;
        if (stream_of) a.stream_id = stream_of(control->get_id());
    };
    bridge.translate(in, out);
}

}  // namespace cosim
#endif /* COSIM_AMBA_PV_H */
