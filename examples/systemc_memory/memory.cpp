// A foreign node in SystemC: sparse DRAM as a TLM-2.0 target, in place of the part `memory` of a machine; docs/attach-systemc.md.
//
//     cosim up topologies/rdn2cfg1_systemc.yaml
#define CSA_IMPLEMENTATION
#include "cosim_bridge.h"

#include <array>
#include <unordered_map>

// Bytes at absolute physical addresses, zero at reset, kept in 4 KiB pages that exist once something was written.
class Memory : public sc_core::sc_module {
public:
    tlm_utils::simple_target_socket<Memory> bus;

    Memory(sc_core::sc_module_name name, cosim::Bridge& bridge) : sc_module(name), bus("bus"), bridge_(bridge) {
        bus.register_b_transport(this, &Memory::b_transport);
        bus.register_transport_dbg(this, &Memory::transport_dbg);
    }

private:
    using Page = std::array<unsigned char, 4096>;

    void b_transport(tlm::tlm_generic_payload& trans, sc_core::sc_time&) {
        if (trans.get_byte_enable_ptr()) return trans.set_response_status(tlm::TLM_BYTE_ENABLE_ERROR_RESPONSE);
        if (trans.get_streaming_width() < trans.get_data_length())
            return trans.set_response_status(tlm::TLM_BURST_ERROR_RESPONSE);
        ++bridge_.count(trans.is_read() ? "reads" : "writes");
        transport_dbg(trans);
        trans.set_response_status(tlm::TLM_OK_RESPONSE);
    }

    unsigned transport_dbg(tlm::tlm_generic_payload& trans) {
        uint64_t address = trans.get_address();
        unsigned char* data = trans.get_data_ptr();
        for (unsigned left = trans.get_data_length(); left;) {
            const size_t first = address % Page().size(), size = std::min<size_t>(left, Page().size() - first);
            transfer(trans.is_read(), address / Page().size(), first, data, size);
            address += size;
            data += size;
            left -= static_cast<unsigned>(size);
        }
        return trans.get_data_length();
    }

    void transfer(bool read, uint64_t number, size_t first, unsigned char* data, size_t size) {
        auto page = pages_.find(number);
        if (read && page == pages_.end()) std::memset(data, 0, size);
        else if (read) std::memcpy(data, page->second.data() + first, size);
        else std::memcpy(pages_[number].data() + first, data, size);
    }

    cosim::Bridge& bridge_;
    std::unordered_map<uint64_t, Page> pages_;
};

int sc_main(int, char**) {
    cosim::Bridge bridge("bridge", "SystemC memory 1");
    Memory memory("memory", bridge);
    bridge.mmio_target("bus").bind(memory.bus);
    return bridge.run();
}
