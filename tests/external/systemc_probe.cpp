// A model that checks cosim_bridge.h from inside, for tests: `probe checks` asks `probe sink` by two ports and looks at data,
// responses and times; the other modes break a rule of the bridge. What is wrong ends the run with the text of the check.
#define CSA_IMPLEMENTATION
#include "cosim_bridge.h"

using sc_core::SC_NS;
using sc_core::sc_time;

namespace {

// Bytes at 0 to 0x3fff; 0x4000 SLVERR, 0x5000 DECERR, 0x6000 takes 7 ns by wait() and 3 ns by annotation, 0x7000 takes 500 ns;
// 0x8000, 0x8008, 0x8010: attributes, StreamID and kind of the write to 0x9000 before, 0x8018: how many writes came.
class Sink : public sc_core::sc_module {
public:
    tlm_utils::simple_target_socket<Sink> bus;
    explicit Sink(sc_core::sc_module_name name) : sc_module(name), bus("bus") {
        bus.register_b_transport(this, &Sink::b_transport);
    }

private:
    void b_transport(tlm::tlm_generic_payload& trans, sc_time& delay) {
        const uint64_t address = trans.get_address();
        const auto* a = trans.get_extension<cosim::Attributes>();
        trans.set_response_status(tlm::TLM_OK_RESPONSE);
        if (address == 0x4000) return trans.set_response_status(tlm::TLM_COMMAND_ERROR_RESPONSE);
        if (address == 0x5000) return trans.set_response_status(tlm::TLM_ADDRESS_ERROR_RESPONSE);
        if (address == 0x6000) {
            wait(7, SC_NS);
            delay += sc_time(3, SC_NS);
        }
        if (address == 0x7000) wait(500, SC_NS);
        if (address == 0x9000) {
            seen_[0] = a->attr;
            seen_[1] = a->stream_id.value_or(0) + (a->peer == "probe.dma1" ? 1000 : 0);
            seen_[2] = a->posted;
        }
        seen_[3] += trans.is_write();
        unsigned char* at =
            address >= 0x8000 ? reinterpret_cast<unsigned char*>(seen_) + address % 0x20 : bytes_ + address % 0x4000;
        if (trans.is_read()) std::memcpy(trans.get_data_ptr(), at, trans.get_data_length());
        else if (address < 0x4000) std::memcpy(at, trans.get_data_ptr(), trans.get_data_length());
    }

    unsigned char bytes_[0x4000] = {};
    uint64_t seen_[4] = {};
};

class Checks : public sc_core::sc_module {
public:
    tlm_utils::simple_initiator_socket<Checks> socket;
    SC_HAS_PROCESS(Checks);
    Checks(sc_core::sc_module_name name, cosim::Bridge& bridge) : sc_module(name), socket("socket"), bridge_(bridge) {
        SC_THREAD(checks);
        SC_THREAD(other);
        ++bridge_.count("constructed");  // before the run is joined
        bridge_.log("constructed", "before the run");
    }

private:
    struct Answer {
        tlm::tlm_response_status status;
        uint64_t ns;
        sc_time delay;
    };

    void expect(bool good, const char* what) {
        ++bridge_.count("checks");
        if (!good) bridge_.fail(std::string("check failed: ") + what);
    }

    Answer go(tlm::tlm_command command, uint64_t address, void* data, unsigned size,
              std::function<void(tlm::tlm_generic_payload&)> set = nullptr, unsigned ahead_ns = 0) {
        tlm::tlm_generic_payload trans;
        sc_time delay(ahead_ns, SC_NS);
        const sc_time begin = sc_core::sc_time_stamp();
        trans.set_command(command);
        trans.set_address(address);
        trans.set_data_ptr(static_cast<unsigned char*>(data));
        trans.set_data_length(size);
        trans.set_streaming_width(size);
        if (set) set(trans);
        socket->b_transport(trans, delay);
        return {trans.get_response_status(), static_cast<uint64_t>((sc_core::sc_time_stamp() - begin) / sc_time(1, SC_NS)),
                delay};
    }
    Answer write(uint64_t address, uint64_t value, std::function<void(tlm::tlm_generic_payload&)> set = nullptr,
                 unsigned ahead_ns = 0) {
        return go(tlm::TLM_WRITE_COMMAND, address, &value, 8, std::move(set), ahead_ns);
    }
    uint64_t read(uint64_t address) {
        uint64_t value = ~uint64_t(0);
        const Answer answer = go(tlm::TLM_READ_COMMAND, address, &value, 8);
        expect(answer.status == tlm::TLM_OK_RESPONSE && answer.ns == 70 && answer.delay == sc_core::SC_ZERO_TIME,
               "a read takes two latencies");
        return value;
    }
    static std::function<void(tlm::tlm_generic_payload&)> with(std::optional<uint64_t> stream, uint32_t attr, bool posted) {
        return [=](tlm::tlm_generic_payload& trans) {
            auto* a = new cosim::Attributes();
            a->stream_id = stream;
            a->attr = attr;
            a->posted = posted;
            trans.set_extension(a);
        };
    }

    void checks() {
        data();
        responses();
        identities();
        parts();
    }

    void data() {
        uint64_t value = 0;
        expect(write(0x10, 0x1122334455667788).ns == 70 && read(0x10) == 0x1122334455667788, "what was written is read");
        Answer answer = go(tlm::TLM_READ_COMMAND, 0x12, &value, 2, nullptr, 5);
        expect(value == 0x5566 && answer.ns == 75 && answer.delay == sc_core::SC_ZERO_TIME,
               "an annotated delay comes before the request");
        answer = go(tlm::TLM_READ_COMMAND, 0x6000, &value, 8);
        expect(answer.ns == 80, "a target's wait and delay come before the completion");
    }

    void responses() {
        uint64_t value = 1;
        expect(write(0x4000, 0).status == tlm::TLM_GENERIC_ERROR_RESPONSE, "SLVERR is a generic error");
        expect(go(tlm::TLM_READ_COMMAND, 0x5000, &value, 8).status == tlm::TLM_ADDRESS_ERROR_RESPONSE && value == 1,
               "DECERR is an address error");
        const Answer nowhere = write(0x100000, 0, nullptr, 4);
        expect(nowhere.status == tlm::TLM_ADDRESS_ERROR_RESPONSE && nowhere.ns == 0 && nowhere.delay == sc_time(4, SC_NS),
               "an unmapped address is an address error");
        expect(go(tlm::TLM_IGNORE_COMMAND, 0x10, &value, 8).status == tlm::TLM_OK_RESPONSE, "an ignored command does nothing");
        tlm::tlm_generic_payload trans;
        tlm::tlm_dmi dmi;
        trans.set_address(0x10);
        trans.set_data_ptr(reinterpret_cast<unsigned char*>(&value));
        trans.set_data_length(8);
        expect(!socket->get_direct_mem_ptr(trans, dmi) && socket->transport_dbg(trans) == 0,
               "DMI and debug access are refused");
    }

    void identities() {
        expect(write(0x9000, 0, with(17, 4, false)).ns == 100, "a StreamID chooses the port of its link");
        expect(read(0x8000) == 4 && read(0x8008) == 1017 && read(0x8010) == 0, "the receiver sees attributes and StreamID");
        expect(write(0x9000, 0, with(99, 3, false)).status == tlm::TLM_ADDRESS_ERROR_RESPONSE,
               "a StreamID of no link is refused");
        const Answer posted = write(0x9000, 0, with(std::nullopt, 3, true), 2);
        expect(posted.status == tlm::TLM_OK_RESPONSE && posted.ns == 0 && posted.delay == sc_time(2, SC_NS),
               "a posted write does not wait");
        wait(2, SC_NS);
        expect(read(0x8000) == 3 && read(0x8008) == 16 && read(0x8010) == 1, "a posted write arrives as one");
    }

    void parts() {
        std::vector<unsigned char> out(5000), in(5000);
        for (size_t i = 0; i < out.size(); i++) out[i] = static_cast<unsigned char>(i * 7 + i / 256);
        expect(go(tlm::TLM_WRITE_COMMAND, 0x100, out.data(), 5000).ns == 70, "the parts of a long burst go out at once");
        go(tlm::TLM_READ_COMMAND, 0x100, in.data(), 5000);
        expect(in == out, "a long burst is whole");
        const uint64_t before = read(0x8018);
        unsigned char enables[4] = {0xff, 0, 0xff, 0xff};
        write(0x20, 0x8877665544332211, [&enables](tlm::tlm_generic_payload& trans) {
            trans.set_byte_enable_ptr(enables);
            trans.set_byte_enable_length(4);
        });
        expect(read(0x20) == 0x8877005544330011 && read(0x8018) == before + 3, "disabled bytes are not written");
        write(0x30, 0x8877665544332211, [](tlm::tlm_generic_payload& trans) { trans.set_streaming_width(4); });
        expect(read(0x30) == 0x88776655, "a streaming burst goes to one address");
        const auto width = [](tlm::tlm_generic_payload& trans) { trans.set_streaming_width(0); };
        expect(write(0x30, 0, width).status == tlm::TLM_BURST_ERROR_RESPONSE, "a streaming width of 0 is a burst error");
        expect(write(0x30, 0, [&enables](tlm::tlm_generic_payload& trans) { trans.set_byte_enable_ptr(enables); }).status ==
                   tlm::TLM_BYTE_ENABLE_ERROR_RESPONSE,
               "byte enables of length 0 are an error of their own");
    }

    // A slow access of another thread does not hold up those of `checks`.
    void other() {
        uint64_t value;
        expect(go(tlm::TLM_READ_COMMAND, 0x7000, &value, 8).ns == 570, "accesses of two threads overlap");
    }

    cosim::Bridge& bridge_;
};

// A free-running clock of 1 ns: a write to register 0 starts a count of so many edges, at whose end a line rises.
class Clocked : public sc_core::sc_module {
public:
    tlm_utils::simple_target_socket<Clocked> regs;
    sc_core::sc_out<bool> irq;
    SC_HAS_PROCESS(Clocked);
    Clocked(sc_core::sc_module_name name, cosim::Bridge& bridge)
        : sc_module(name), regs("regs"), irq("irq"), clock_("clock", 1, SC_NS) {
        regs.register_b_transport(this, &Clocked::b_transport);
        bridge.promise([this, &bridge] { return left_ ? bridge.now() : cosim::NEVER; });
        if (sc_core::sc_trace_file* file = bridge.waves()) sc_core::sc_trace(file, irq, "irq");
        SC_METHOD(edge);
        dont_initialize();
        sensitive << clock_.posedge_event();
    }

private:
    void b_transport(tlm::tlm_generic_payload& trans, sc_time&) {
        uint64_t value = left_;
        if (trans.is_read()) std::memset(trans.get_data_ptr(), 0, trans.get_data_length());
        else std::memcpy(&value, trans.get_data_ptr(), std::min(8u, trans.get_data_length()));
        if (trans.is_write()) left_ = value % 100 + 1;
        else wait(5500, sc_core::SC_PS);  // answered later, which `promise` does not know
        trans.set_response_status(tlm::TLM_OK_RESPONSE);
    }
    void edge() {
        if (left_) irq.write(--left_ == 0);
    }

    sc_core::sc_clock clock_;
    uint64_t left_ = 0;
};

// Requests at times of its own, whose data tell how far a second process has come: a kernel that runs past a grant's limit shows.
class Pulse : public sc_core::sc_module {
public:
    tlm_utils::simple_initiator_socket<Pulse> socket;
    SC_HAS_PROCESS(Pulse);
    explicit Pulse(sc_core::sc_module_name name) : sc_module(name), socket("socket") {
        SC_THREAD(ask);
        SC_THREAD(count);
    }

private:
    void ask() {
        for (uint64_t i = 0; i < 10; i++) {
            wait(50, SC_NS);
            go(tlm::TLM_READ_COMMAND, 0x1000 + 64 * i, 64);
            wait(3300, sc_core::SC_PS);
            std::memcpy(data_, &counted_, 8);
            go(tlm::TLM_WRITE_COMMAND, 0x8000 + 8 * i, 8);
        }
    }
    void count() {
        while (++counted_ < 200) wait(7, SC_NS);
    }
    void go(tlm::tlm_command command, uint64_t address, unsigned size) {
        tlm::tlm_generic_payload trans;
        sc_time delay = sc_core::SC_ZERO_TIME;
        trans.set_command(command);
        trans.set_address(address);
        trans.set_data_ptr(data_);
        trans.set_data_length(size);
        trans.set_streaming_width(size);
        socket->b_transport(trans, delay);
    }
    uint64_t counted_ = 0;
    unsigned char data_[64];
};

// Breaks a rule at 10 ns.
class Wrong : public sc_core::sc_module {
public:
    tlm_utils::simple_initiator_socket<Wrong> socket;
    SC_HAS_PROCESS(Wrong);
    Wrong(sc_core::sc_module_name name, bool stop) : sc_module(name), socket("socket"), stop_(stop) {
        SC_METHOD(act);
        dont_initialize();
        sensitive << event_;
        event_.notify(10, SC_NS);
    }

private:
    void act() {
        if (stop_) return sc_core::sc_stop();
        unsigned char data[8];
        tlm::tlm_generic_payload trans;
        sc_time delay = sc_core::SC_ZERO_TIME;
        trans.set_read();
        trans.set_data_ptr(data);
        trans.set_data_length(8);
        trans.set_streaming_width(8);
        socket->b_transport(trans, delay);
    }
    bool stop_;
    sc_core::sc_event event_;
};

}  // namespace

int sc_main(int argc, char* argv[]) {
    const std::string mode = argc > 1 ? argv[1] : "";
    if (mode == "coarse") sc_core::sc_set_time_resolution(1, SC_NS);
    if (mode == "fine") sc_core::sc_set_time_resolution(10, sc_core::SC_FS);
    cosim::Bridge bridge("bridge", "probe");
    if (mode == "early") bridge.fail("the model's file is missing");
    if (mode == "sink") {
        Sink sink("sink");
        bridge.mmio_target("bus").bind(sink.bus);
        return bridge.run();
    }
    if (mode == "clock") {
        sc_core::sc_signal<bool> irq("irq");
        Clocked model("model", bridge);
        bridge.mmio_target("regs", true).bind(model.regs);
        model.irq.bind(irq);
        bridge.wire_out("irq").bind(irq);
        return bridge.run();
    }
    if (mode == "pulse") {
        Pulse model("model");
        model.socket.bind(bridge.mmio_initiator("dma"));
        return bridge.run();
    }
    if (mode == "method" || mode == "stop") {
        Wrong model("model", mode == "stop");
        model.socket.bind(bridge.mmio_initiator({"dma0", "dma1"}));
        return bridge.run();
    }
    Checks model("model", bridge);
    model.socket.bind(bridge.mmio_initiator({"dma0", "dma1"}));
    return bridge.run();
}
