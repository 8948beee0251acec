// A stand-in for the part of Arm's AMBA-PV (AMBA extensions to TLM-2.0 of Fast Models) that an EVS shows to SystemC: sockets of a
// protocol of their own, transactions with an extension for AxPROT, ID and response, level signals, and the bridges to plain
// TLM-2.0 and sc_signal. Names and roles are those of Arm's user guide, as far as the recipe needs them; the code is ours.
#ifndef AMBA_PV_H
#define AMBA_PV_H

#include <cstdint>

#include <systemc>
#include <tlm>
#include <tlm_utils/simple_initiator_socket.h>
#include <tlm_utils/simple_target_socket.h>

namespace amba_pv {

enum amba_pv_resp_t { AMBA_PV_OKAY = 0, AMBA_PV_EXOKAY = 1, AMBA_PV_SLVERR = 2, AMBA_PV_DECERR = 3 };

// What a transaction says about itself beside address and data.
class amba_pv_control {
public:
    void set_id(unsigned id) { id_ = id; }
    unsigned get_id() const { return id_; }
    void set_privileged(bool on = true) { privileged_ = on; }
    bool is_privileged() const { return privileged_; }
    void set_non_secure(bool on = true) { non_secure_ = on; }
    bool is_non_secure() const { return non_secure_; }
    void set_instruction(bool on = true) { instruction_ = on; }
    bool is_instruction() const { return instruction_; }

private:
    unsigned id_ = 0;
    bool privileged_ = false, non_secure_ = false, instruction_ = false;
};

class amba_pv_extension : public tlm::tlm_extension<amba_pv_extension>, public amba_pv_control {
public:
    amba_pv_extension() = default;
    explicit amba_pv_extension(const amba_pv_control* control) {
        if (control) static_cast<amba_pv_control&>(*this) = *control;
    }
    void set_resp(amba_pv_resp_t resp) { resp_ = resp; }
    amba_pv_resp_t get_resp() const { return resp_; }
    tlm::tlm_extension_base* clone() const override { return new amba_pv_extension(*this); }
    void copy_from(const tlm::tlm_extension_base& other) override { *this = static_cast<const amba_pv_extension&>(other); }

private:
    amba_pv_resp_t resp_ = AMBA_PV_OKAY;
};

using amba_pv_transaction = tlm::tlm_generic_payload;

struct amba_pv_protocol_types {
    typedef amba_pv_transaction tlm_payload_type;
    typedef tlm::tlm_phase tlm_phase_type;
};

// Blocking transport, DMI and debug only: neither side of a socket is a plain TLM-2.0 interface.
class amba_pv_fw_transport_if : public virtual tlm::tlm_blocking_transport_if<amba_pv_transaction>,
                                public virtual tlm::tlm_fw_direct_mem_if<amba_pv_transaction>,
                                public virtual tlm::tlm_transport_dbg_if<amba_pv_transaction> {
public:
    using protocol_types = amba_pv_protocol_types;
};
class amba_pv_bw_transport_if : public virtual tlm::tlm_bw_direct_mem_if {
public:
    using protocol_types = amba_pv_protocol_types;
};

template <unsigned BUSWIDTH = 64>
class amba_pv_slave_socket : public tlm::tlm_base_target_socket<BUSWIDTH, amba_pv_fw_transport_if, amba_pv_bw_transport_if> {
public:
    using tlm::tlm_base_target_socket<BUSWIDTH, amba_pv_fw_transport_if, amba_pv_bw_transport_if>::tlm_base_target_socket;
};

template <unsigned BUSWIDTH = 64>
class amba_pv_master_socket
    : public tlm::tlm_base_initiator_socket<BUSWIDTH, amba_pv_fw_transport_if, amba_pv_bw_transport_if> {
public:
    using tlm::tlm_base_initiator_socket<BUSWIDTH, amba_pv_fw_transport_if, amba_pv_bw_transport_if>::tlm_base_initiator_socket;

    amba_pv_resp_t read(sc_dt::uint64 addr, unsigned char* data, unsigned size, const amba_pv_control* control,
                        sc_core::sc_time& t) {
        return transport(tlm::TLM_READ_COMMAND, addr, data, size, control, t);
    }
    amba_pv_resp_t write(sc_dt::uint64 addr, unsigned char* data, unsigned size, const amba_pv_control* control,
                         sc_core::sc_time& t) {
        return transport(tlm::TLM_WRITE_COMMAND, addr, data, size, control, t);
    }

private:
    amba_pv_resp_t transport(tlm::tlm_command command, sc_dt::uint64 addr, unsigned char* data, unsigned size,
                             const amba_pv_control* control, sc_core::sc_time& t) {
        amba_pv_transaction trans;
        auto* extension = new amba_pv_extension(control);  // the payload frees it
        trans.set_extension(extension);
        trans.set_command(command);
        trans.set_address(addr);
        trans.set_data_ptr(data);
        trans.set_data_length(size);
        trans.set_streaming_width(size);
        (*this)->b_transport(trans, t);
        return extension->get_resp();
    }
};

// A master's other side: DMI pointers are not used.
class amba_pv_master_base : public amba_pv_bw_transport_if {
public:
    void invalidate_direct_mem_ptr(sc_dt::uint64, sc_dt::uint64) override {}
};

// A slave: override read() and write().
class amba_pv_slave_base : public amba_pv_fw_transport_if {
public:
    virtual amba_pv_resp_t read(sc_dt::uint64 addr, unsigned char* data, unsigned size, const amba_pv_control* control,
                                sc_core::sc_time& t) = 0;
    virtual amba_pv_resp_t write(sc_dt::uint64 addr, unsigned char* data, unsigned size, const amba_pv_control* control,
                                 sc_core::sc_time& t) = 0;

    void b_transport(amba_pv_transaction& trans, sc_core::sc_time& t) override {
        auto* extension = trans.get_extension<amba_pv_extension>();
        const amba_pv_resp_t resp =
            trans.is_read() ? read(trans.get_address(), trans.get_data_ptr(), trans.get_data_length(), extension, t)
                            : write(trans.get_address(), trans.get_data_ptr(), trans.get_data_length(), extension, t);
        if (extension) extension->set_resp(resp);
        trans.set_response_status(resp == AMBA_PV_DECERR   ? tlm::TLM_ADDRESS_ERROR_RESPONSE
                                  : resp == AMBA_PV_SLVERR ? tlm::TLM_GENERIC_ERROR_RESPONSE
                                                           : tlm::TLM_OK_RESPONSE);
    }
    bool get_direct_mem_ptr(amba_pv_transaction&, tlm::tlm_dmi&) override { return false; }
    unsigned transport_dbg(amba_pv_transaction&) override { return 0; }
};

// -- signals -----------------------------------------------------------------------------------------------------------------

template <typename STATE> class signal_transport_if : public virtual sc_core::sc_interface {
public:
    virtual void set_state(int export_id, const STATE& state) = 0;
};

template <typename STATE> class signal_master_port : public sc_core::sc_port<signal_transport_if<STATE>, 1> {
public:
    using sc_core::sc_port<signal_transport_if<STATE>, 1>::sc_port;
    void set_state(const STATE& state) { (*this)->set_state(0, state); }
};

template <typename STATE> using signal_slave_export = sc_core::sc_export<signal_transport_if<STATE>>;
template <typename STATE> using signal_slave_base = signal_transport_if<STATE>;

// -- bridges -----------------------------------------------------------------------------------------------------------------

template <unsigned BUSWIDTH = 64> class amba_pv_to_tlm_bridge : public sc_core::sc_module, public amba_pv_fw_transport_if {
public:
    amba_pv_slave_socket<BUSWIDTH> amba_pv_s;
    tlm_utils::simple_initiator_socket<amba_pv_to_tlm_bridge, BUSWIDTH> tlm_m;

    explicit amba_pv_to_tlm_bridge(const sc_core::sc_module_name& name)
        : sc_module(name), amba_pv_s("amba_pv_s"), tlm_m("tlm_m") {
        amba_pv_s.bind(*this);
    }

private:
    void b_transport(amba_pv_transaction& trans, sc_core::sc_time& t) override {
        tlm_m->b_transport(trans, t);
        auto* extension = trans.get_extension<amba_pv_extension>();
        const tlm::tlm_response_status status = trans.get_response_status();
        if (extension)
            extension->set_resp(status == tlm::TLM_OK_RESPONSE              ? AMBA_PV_OKAY
                                : status == tlm::TLM_ADDRESS_ERROR_RESPONSE ? AMBA_PV_DECERR
                                                                            : AMBA_PV_SLVERR);
    }
    bool get_direct_mem_ptr(amba_pv_transaction& trans, tlm::tlm_dmi& dmi) override {
        return tlm_m->get_direct_mem_ptr(trans, dmi);
    }
    unsigned transport_dbg(amba_pv_transaction& trans) override { return tlm_m->transport_dbg(trans); }
};

template <unsigned BUSWIDTH = 64> class amba_pv_from_tlm_bridge : public sc_core::sc_module, public amba_pv_master_base {
public:
    tlm_utils::simple_target_socket<amba_pv_from_tlm_bridge, BUSWIDTH> tlm_s;
    amba_pv_master_socket<BUSWIDTH> amba_pv_m;

    explicit amba_pv_from_tlm_bridge(const sc_core::sc_module_name& name)
        : sc_module(name), tlm_s("tlm_s"), amba_pv_m("amba_pv_m") {
        tlm_s.register_b_transport(this, &amba_pv_from_tlm_bridge::b_transport);
        amba_pv_m.bind(*this);
    }

private:
    void b_transport(tlm::tlm_generic_payload& trans, sc_core::sc_time& t) {
        if (!trans.get_extension<amba_pv_extension>()) trans.set_extension(new amba_pv_extension());  // the payload frees it
        amba_pv_m->b_transport(trans, t);
    }
};

template <typename STATE> class signal_from_sc_bridge : public sc_core::sc_module {
public:
    sc_core::sc_in<STATE> signal_in;
    signal_master_port<STATE> signal_m;

    SC_HAS_PROCESS(signal_from_sc_bridge);
    explicit signal_from_sc_bridge(const sc_core::sc_module_name& name)
        : sc_module(name), signal_in("signal_in"), signal_m("signal_m") {
        SC_METHOD(change);
        this->dont_initialize();
        this->sensitive << signal_in;
    }

private:
    void change() { signal_m.set_state(signal_in.read()); }
};

template <typename STATE> class signal_to_sc_bridge : public sc_core::sc_module, public signal_slave_base<STATE> {
public:
    signal_slave_export<STATE> signal_s;
    sc_core::sc_out<STATE> signal_out;

    SC_HAS_PROCESS(signal_to_sc_bridge);
    explicit signal_to_sc_bridge(const sc_core::sc_module_name& name)
        : sc_module(name), signal_s("signal_s"), signal_out("signal_out") {
        signal_s.bind(*this);
        SC_METHOD(write);
        this->dont_initialize();
        this->sensitive << changed_;
    }

private:
    // Several processes of a subsystem may call it; an sc_signal wants one writer.
    void set_state(int, const STATE& state) override {
        state_ = state;
        changed_.notify();
    }
    void write() { signal_out.write(state_); }

    STATE state_{};
    sc_core::sc_event changed_;
};

}  // namespace amba_pv
#endif
