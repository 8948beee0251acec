/* cosim_bridge.h: a SystemC TLM-2.0 model (IEEE 1666-2011) as a node of a cosim run. Header-only C++17 over csa.h.
 *
 * In the source file that has sc_main, and nowhere else:   #define CSA_IMPLEMENTATION
 *                                                          #include "cosim_bridge.h"
 * build:   c++ -std=c++17 model.cpp $(python -m cosim.attach) -lsystemc -lzmq
 *
 *     int sc_main(int, char**) {
 *         cosim::Bridge bridge("bridge", "my memory 1.0");
 *         Memory memory("memory");                        // has a tlm_utils::simple_target_socket<Memory> socket
 *         bridge.mmio_target("bus").bind(memory.socket);  // what comes in by port `bus` is a b_transport of this socket
 *         return bridge.run();                            // in place of sc_start()
 *     }
 *
 * The bridge owns time: run() executes grants by sc_start() and ends with the run; nothing else may call sc_start or sc_stop.
 * Times are picoseconds, and so must be the resolution (or finer). docs/attach-systemc.md is the tutorial.
 *
 * Rules for the model: only an SC_THREAD may call b_transport of a socket that leads to the bridge, since it waits there until the
 * completion has arrived; DMI is refused; transport_dbg transfers nothing. Annotated delays are honoured in both directions. The
 * order of an input and the model's own processes at one instant is SystemC's, that is open, but it does not depend on grants.
 */
#ifndef COSIM_BRIDGE_H
#define COSIM_BRIDGE_H

#include "csa.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#ifndef SC_INCLUDE_DYNAMIC_PROCESSES
#define SC_INCLUDE_DYNAMIC_PROCESSES
#endif
#include <systemc>
#include <tlm>
#include <tlm_utils/simple_initiator_socket.h>
#include <tlm_utils/simple_target_socket.h>

namespace cosim {

constexpr uint64_t NEVER = CSA_NEVER;

/* What a bus message has besides a generic payload. On the way in it is there always. On the way out it is optional: a StreamID or
 * DeviceID chooses among the socket's ports the one whose link has it in the topology; a model cannot claim one that none has. */
class Attributes : public tlm::tlm_extension<Attributes> {
public:
    uint32_t attr = CSA_PRIVILEGED | CSA_NONSECURE; /* AxPROT; with a PASID: bit 8, and the PASID in bits 12 to 31 */
    bool posted = false; /* a write without completion, such as an MSI: b_transport returns at once */
    std::optional<uint64_t> stream_id, device_id;
    std::string peer; /* way in: who sent it, NODE.PORT */

    tlm::tlm_extension_base* clone() const override { return new Attributes(*this); }
    void copy_from(const tlm::tlm_extension_base& other) override { *this = static_cast<const Attributes&>(other); }
};

inline tlm::tlm_response_status response_of(uint32_t status) {
    return status == CSA_DECERR   ? tlm::TLM_ADDRESS_ERROR_RESPONSE
           : status == CSA_SLVERR ? tlm::TLM_GENERIC_ERROR_RESPONSE
                                  : tlm::TLM_OK_RESPONSE;
}

inline int status_of(tlm::tlm_response_status response) {
    return response == tlm::TLM_OK_RESPONSE ? CSA_OKAY : response == tlm::TLM_ADDRESS_ERROR_RESPONSE ? CSA_DECERR : CSA_SLVERR;
}

namespace detail {

/* One access that came in. */
struct Access {
    int link, kind;
    uint64_t tag, addr;
    uint32_t size, attr;
    std::vector<unsigned char> data;
};

struct AccessPort {
    virtual ~AccessPort() = default;
    virtual void receive(Access access) = 0;
};

/* Requests of one b_transport that went out, until the last completion is here. */
struct Wait {
    sc_core::sc_event event;
    unsigned open = 0;
    uint32_t status = CSA_OKAY;
};

struct Pending {
    Wait* wait; /* nullptr: the thread that asked was reset */
    unsigned char* to;
    uint32_t size;
};

/* A contiguous part of a transaction: no disabled byte, no wrap of the streaming width, within the protocol's size. */
struct Piece {
    uint64_t addr;
    unsigned at;
    uint32_t size;
};

inline std::vector<Piece> pieces_of(const tlm::tlm_generic_payload& trans) {
    std::vector<Piece> pieces;
    const unsigned length = trans.get_data_length(), enables = trans.get_byte_enable_length();
    const unsigned char* enable = trans.get_byte_enable_ptr();
    const unsigned width = std::min(trans.get_streaming_width(), length);
    bool running = false;
    for (unsigned i = 0; i < length; i++) {
        if (enable && enable[i % enables] != TLM_BYTE_ENABLED) {
            running = false;
            continue;
        }
        if (!running || i % width == 0 || pieces.back().size == CSA_MAX_DATA)
            pieces.push_back({trans.get_address() + i % width, i, 0});
        pieces.back().size++;
        running = true;
    }
    return pieces;
}

inline uint64_t little_endian(const unsigned char* bytes, uint32_t size) {
    uint64_t value = 0;
    for (uint32_t i = std::min<uint32_t>(size, 8); i--;) value = value << 8 | bytes[i];
    return value;
}

}  // namespace detail

template <unsigned WIDTH> class TargetPort;
template <unsigned WIDTH> class InitiatorPort;

class Bridge : public sc_core::sc_module {
public:
    SC_HAS_PROCESS(Bridge);

    /* lookahead_ps: a promise that no input causes an output sooner; `model` says what this is, for the record. */
    explicit Bridge(sc_core::sc_module_name name, std::string model = "SystemC", uint64_t lookahead_ps = 0)
        : sc_module(name),
          node_(new csa()),
          model_(std::move(model)),
          lookahead_(lookahead_ps),
          tick_(sc_core::sc_time(1, sc_core::SC_PS).value()) {
        if (!tick_)
            SC_REPORT_ERROR("/cosim/bridge", "the time resolution must be 1 ps or finer: sc_set_time_resolution(1, SC_PS)");
        sc_core::sc_report_handler::set_actions(sc_core::SC_ID_NO_SC_START_ACTIVITY_, sc_core::SC_DO_NOTHING);
        SC_METHOD(dispatch);
        dont_initialize();
        sensitive << input_;
    }

    /* -- before run(): the node's ports, with the names that the topology has -- */

    /* A port that takes requests: each becomes a b_transport of the socket returned, in a thread of its own, at its arrival.
     * in_order: the next one waits until the one before has returned. */
    template <unsigned WIDTH = 32>
    tlm_utils::simple_initiator_socket<TargetPort<WIDTH>, WIDTH>& mmio_target(const std::string& port, bool in_order = false);
    /* Ports that issue requests: each b_transport to the socket returned goes out by the first one, or by that with its StreamID. */
    template <unsigned WIDTH = 32>
    tlm_utils::simple_target_socket<InitiatorPort<WIDTH>, WIDTH>& mmio_initiator(std::vector<std::string> ports);
    template <unsigned WIDTH = 32>
    tlm_utils::simple_target_socket<InitiatorPort<WIDTH>, WIDTH>& mmio_initiator(const char* port) {
        return mmio_initiator<WIDTH>(std::vector<std::string>{port});
    }
    /* A level line that others drive: bind it to a signal that the model reads. */
    sc_core::sc_out<bool>& wire_in(const std::string& port, uint64_t line = 0) {
        role(port, "wire");
        auto& made = levels_[{port, line}];
        if (!made) made = std::make_unique<Level>(sc_core::sc_gen_unique_name((port + "_in").c_str()));
        return made->out;
    }
    /* A level line that the model drives: bind it to a signal that the model writes. `peer` only when the port has several. */
    sc_core::sc_in<bool>& wire_out(const std::string& port, uint64_t line = 0, const std::string& peer = "") {
        role(port, "wire");
        lines_.push_back(std::make_unique<Line>(sc_core::sc_gen_unique_name((port + "_out").c_str()), *this, port, peer, line));
        return lines_.back()->in;
    }
    /* The earliest time (ps) at which the model may send without a new input, NEVER while it is idle. Without this function the
     * model's next event is taken, which a free-running clock makes useless. */
    void promise(std::function<uint64_t()> earliest) { promise_ = std::move(earliest); }
    /* Translate between a transaction's own extension and Attributes: `in` before it goes to the model, `out` after it has come. */
    using Translate = std::function<void(tlm::tlm_generic_payload&, Attributes&)>;
    void translate(Translate in, Translate out) {
        translate_in_ = std::move(in);
        translate_out_ = std::move(out);
    }

    /* The VCD file of `cosim up --wave`, nullptr in other runs: what is traced in it is in waves/NODE.vcd of the run directory. */
    sc_core::sc_trace_file* waves() {
        const char* path = std::getenv("COSIM_WAVE");
        if (!std::exchange(waves_asked_, true)) {
            csa_capability("wave");
            waves_ = path ? sc_core::sc_create_vcd_trace_file(path) : nullptr;
            if (waves_) waves_->set_time_unit(1, sc_core::SC_PS);
        }
        return waves_;
    }

    /* Join the run; run() does so when this was not called before, as must be to use param(). */
    bool open() {
        if (opened_ || *csa_error(node_.get())) return !*csa_error(node_.get());
        opened_ = true;
        std::vector<csa_port> ports;
        for (const auto& [name, role] : roles_) ports.push_back({name.c_str(), role});
        const int counters = node_->ncounters; /* those of the model's constructors */
        const int failed = csa_open_env(node_.get(), ports.data(), static_cast<int>(ports.size()), lookahead_, 0, model_.c_str());
        node_->ncounters = counters;
        for (const auto& [event, text] : early_) csa_log(node_.get(), event.c_str(), text.c_str());
        early_.clear();
        return !failed;
    }
    /* An integer parameter of the topology. */
    uint64_t param(const char* name, uint64_t otherwise) const { return csa_param(node_.get(), name, otherwise); }
    /* A seed for random numbers, the same in each repetition of a run. */
    uint64_t seed() const { return node_->seed; }

    /* -- at any time -- */

    /* A counter, reported as NODE.NAME; `name` must stay. */
    uint64_t& count(const char* name) {
        uint64_t* found = csa_count(node_.get(), name);
        return found ? *found : no_counter_;
    }
    void log(const char* event, const std::string& text) {
        if (!opened_) return early_.emplace_back(event, text), void();
        node_->now = std::max(node_->now, now());
        csa_log(node_.get(), event, text.c_str());
    }
    /* End the run: the model has failed. */
    void fail(const std::string& what) {
        node_->now = std::max(node_->now, now());
        csa_fail(node_.get(), what.c_str());
        leave();
    }
    /* Simulated time in ps. */
    uint64_t now() const { return sc_core::sc_time_stamp().value() / tick_; }

    /* In place of sc_start(): take part in the run until it is over. The exit status for sc_main. */
    int run() {
        if (open()) {
            try {
                csa_ready(node_.get(), 0, 0); /* initialisation is the first event */
                while (csa_wait(node_.get()) > 0) {
                    execute();
                    answer();
                }
            } catch (const std::exception& error) {
                target_ = 0;
                fail(error.what());
            }
        }
        if (waves_) sc_core::sc_close_vcd_trace_file(waves_);
        if (*csa_error(node_.get())) csa_complain(node_.get());
        return csa_close(node_.get());
    }

private:
    template <unsigned> friend class TargetPort;
    template <unsigned> friend class InitiatorPort;

    /* Ports of signals need a module each. */
    struct Level : sc_core::sc_module {
        sc_core::sc_out<bool> out;
        explicit Level(sc_core::sc_module_name name) : sc_module(name), out("out") {}
    };

    struct Line : sc_core::sc_module {
        SC_HAS_PROCESS(Line);
        sc_core::sc_in<bool> in;
        Line(sc_core::sc_module_name name, Bridge& bridge, std::string port, std::string peer, uint64_t line)
            : sc_module(name), in("in"), bridge_(bridge), port_(std::move(port)), peer_(std::move(peer)), line_(line) {
            SC_METHOD(drive);
            sensitive << in;
        }
        void drive() {
            if (in.read() == level_) return;
            level_ = !level_;
            csa_level(bridge_.node_.get(), port_.c_str(), peer_.empty() ? nullptr : peer_.c_str(), line_, level_,
                      bridge_.after(sc_core::SC_ZERO_TIME));
            bridge_.leave();
        }

    private:
        Bridge& bridge_;
        std::string port_, peer_;
        uint64_t line_;
        bool level_ = false;
    };

    /* -- time -- */

    sc_core::sc_time duration(uint64_t ps) const {
        if (ps > ~uint64_t(0) / tick_) throw std::range_error("the time resolution is too fine for this run's times: use 1 ps");
        return sc_core::sc_time::from_value(ps * tick_);
    }
    /* The time of something that has an annotated delay, rounded up to ps. */
    uint64_t after(const sc_core::sc_time& delay) const {
        return (sc_core::sc_time_stamp().value() + delay.value() + tick_ - 1) / tick_;
    }

    void kernel(const sc_core::sc_time& span) {
        sc_core::sc_start(span);
        if (sc_core::sc_get_status() == sc_core::SC_STOPPED)
            throw std::runtime_error("the model called sc_stop(): only the run may end itself");
    }

    /* A grant: everything below node_->stop. sc_start() is exclusive: what is due at its end runs in the next one. */
    void execute() {
        if (!started_) kernel(sc_core::SC_ZERO_TIME);
        started_ = true;
        while (!*csa_error(node_.get()) && !node_->off) {
            const uint64_t time = now(), held = csa_peek(node_.get());
            if (held <= time && time < node_->stop) {
                input_.notify(); /* dispatch() is in the first evaluation phase of this instant */
                kernel(sc_core::SC_ZERO_TIME);
                continue;
            }
            target_ = std::min(held, node_->stop);
            if (target_ <= time || (target_ > ~uint64_t(0) / tick_ && !sc_core::sc_pending_activity())) break;
            kernel(duration(target_ - time));
        }
        target_ = 0;
    }

    void answer() {
        uint64_t event = NEVER, out;
        if (sc_core::sc_pending_activity())
            event = (sc_core::sc_time_stamp() + sc_core::sc_time_to_pending_activity()).value() / tick_;
        out = event;
        if (promise_ && !serving_)
            out = std::max(event, promise_()); /* an access that is being served may be answered at any event */
        csa_done(node_.get(), event, out, node_->stop);
    }

    /* A send may have lowered the limit of this grant. */
    void leave() {
        if (target_ && (node_->stop < target_ || *csa_error(node_.get()))) sc_core::sc_pause();
    }

    /* -- inputs -- */

    void dispatch() {
        csa* c = node_.get();
        const uint64_t time = now();
        while (!c->off && !*csa_error(c) && csa_peek(c) <= time) {
            const uint64_t stop = std::exchange(c->stop, time + 1); /* no input of a later time */
            const csa_msg* m = csa_take(c);
            c->stop = stop;
            if (m) receive(*m);
        }
    }

    void receive(const csa_msg& m) {
        const std::string port = node_->links[m.link].port;
        if (m.kind == CSA_COMPLETION) return complete(m);
        if (m.kind == CSA_LEVEL) {
            auto found = levels_.find({port, m.field[0].u});
            if (found == levels_.end())
                return fail("line " + std::to_string(m.field[0].u) + " of port " + port +
                            " is not bound: wire_in() must name it");
            return found->second->out.write(m.field[1].u != 0);
        }
        auto found = targets_.find(port);
        if (found == targets_.end())
            return fail("port " + port + " got a message of kind " + std::to_string(m.kind) +
                        ", which the bridge does not carry");
        detail::Access access = {m.link, m.kind, m.tag, m.addr, m.size, m.attr, std::vector<unsigned char>(m.size)};
        for (uint32_t i = 0; m.kind != CSA_READ && i < m.size; i++)
            access.data[i] = m.bytes ? m.bytes[i] : static_cast<unsigned char>(m.data >> 8 * i);
        found->second->receive(std::move(access));
    }

    void complete(const csa_msg& m) {
        auto found = pending_.find(m.tag);
        if (found == pending_.end())
            return fail("a completion must answer an outstanding request, not tag " + std::to_string(m.tag));
        const detail::Pending p = found->second;
        pending_.erase(found);
        if (!p.wait) {
            ++count("stray_completions");
            return;
        }
        if (p.to && m.status < CSA_SLVERR) {
            const bool whole = p.size == 1 || p.size == 2 || p.size == 4 || p.size == 8;
            if (whole == (m.bytes != nullptr) || (!whole && m.size != p.size))
                return fail("the completion of a read must have its size");
            for (uint32_t i = 0; i < p.size; i++) p.to[i] = whole ? static_cast<unsigned char>(m.data >> 8 * i) : m.bytes[i];
        }
        p.wait->status = std::max(p.wait->status, m.status);
        if (!--p.wait->open) p.wait->event.notify();
    }

    std::optional<uint64_t> attribute(int link, const char* name) const {
        const uint64_t value = csa_link_attribute(node_.get(), link, name, NEVER);
        return value == NEVER ? std::nullopt : std::optional<uint64_t>(value);
    }

    Attributes attributes_of(const detail::Access& access) const {
        Attributes a;
        a.attr = access.attr;
        a.posted = access.kind == CSA_WRITE_POSTED;
        a.stream_id = attribute(access.link, "stream_id");
        a.device_id = attribute(access.link, "device_id");
        a.peer = node_->links[access.link].peer;
        return a;
    }

    void reply(const detail::Access& access, int status, uint64_t at) {
        csa_msg& m = request_;
        m.link = access.link;
        m.kind = access.kind;
        m.tag = access.tag;
        m.size = access.size;
        const bool bytes = access.size > 8 || (access.size & (access.size - 1));
        if (bytes && access.kind == CSA_READ && status == CSA_OKAY) csa_reply_bytes(node_.get(), &m, access.data.data(), at);
        else
            csa_reply(node_.get(), &m, status,
                      access.kind == CSA_READ ? detail::little_endian(access.data.data(), access.size) : 0, at);
        leave();
    }

    /* -- outputs -- */

    /* The port by which a transaction leaves; nullptr: none has its identity. */
    const char* port_of(const std::vector<std::string>& ports, const Attributes& a) const {
        if (!a.stream_id && !a.device_id) return ports.front().c_str();
        for (const auto& port : ports)
            for (int i = 0; i < node_->nlinks; i++)
                if (node_->links[i].out && port == node_->links[i].port &&
                    (!a.stream_id || attribute(i, "stream_id") == a.stream_id) &&
                    (!a.device_id || attribute(i, "device_id") == a.device_id))
                    return port.c_str();
        return nullptr;
    }

    void transport(const std::vector<std::string>& ports, tlm::tlm_generic_payload& trans, sc_core::sc_time& delay) {
        const Attributes* given = trans.get_extension<Attributes>();
        Attributes a = given ? *given : Attributes();
        trans.set_dmi_allowed(false);
        trans.set_response_status(tlm::TLM_OK_RESPONSE);
        if (trans.get_command() == tlm::TLM_IGNORE_COMMAND) return;
        if (!trans.get_data_length() || !trans.get_streaming_width())
            return trans.set_response_status(tlm::TLM_BURST_ERROR_RESPONSE);
        if (trans.get_byte_enable_ptr() && !trans.get_byte_enable_length())
            return trans.set_response_status(tlm::TLM_BYTE_ENABLE_ERROR_RESPONSE);
        if (translate_out_) translate_out_(trans, a);
        const char* port = port_of(ports, a);
        if (!port) {
            ++count("refused_identities");
            return trans.set_response_status(tlm::TLM_ADDRESS_ERROR_RESPONSE);
        }
        const sc_core::sc_curr_proc_kind kind = sc_core::sc_get_current_process_handle().proc_kind();
        if (kind != sc_core::SC_THREAD_PROC_ && kind != sc_core::SC_CTHREAD_PROC_)
            throw std::runtime_error("b_transport to the bridge waits: an SC_THREAD must call it, not an SC_METHOD");
        trans.set_response_status(response_of(issue(port, trans, a, delay)));
    }

    /* Send what a transaction asks for and wait for the answers; the status. */
    uint32_t issue(const char* port, tlm::tlm_generic_payload& trans, const Attributes& a, sc_core::sc_time& delay) {
        Outgoing out(*this);
        const uint64_t at = after(delay);
        const int attr = static_cast<int>(a.attr);
        for (const detail::Piece& piece : detail::pieces_of(trans)) {
            unsigned char* bytes = trans.get_data_ptr() + piece.at;
            uint64_t tag = 0;
            int missed;
            if (trans.is_read()) missed = csa_read(node_.get(), port, piece.addr, piece.size, attr, at, &tag);
            else if (a.posted)
                missed = csa_post(node_.get(), port, piece.addr, piece.size, detail::little_endian(bytes, piece.size), bytes,
                                  attr, at);
            else
                missed = csa_write(node_.get(), port, piece.addr, piece.size, detail::little_endian(bytes, piece.size), bytes,
                                   attr, at, &tag);
            if (missed) { /* nothing is mapped there, or an error that ends the run */
                ++count("decode_errors");
                out.wait->status = CSA_DECERR;
                break;
            }
            if (trans.is_write() && a.posted) continue;
            pending_[tag] = {out.wait.get(), trans.is_read() ? bytes : nullptr, piece.size};
            out.wait->open++;
        }
        leave();
        if (out.wait->open) delay = sc_core::SC_ZERO_TIME; /* simulated time has passed instead */
        while (out.wait->open) sc_core::wait(out.wait->event);
        return out.wait->status;
    }

    /* A Wait from the pool, given back even when the thread is reset or killed in mid-transfer. */
    struct Outgoing {
        Bridge& bridge;
        std::unique_ptr<detail::Wait> wait;
        explicit Outgoing(Bridge& b) : bridge(b) {
            if (b.waits_.empty()) b.waits_.emplace_back(new detail::Wait());
            wait = std::move(b.waits_.back());
            b.waits_.pop_back();
            wait->open = 0;
            wait->status = CSA_OKAY;
        }
        ~Outgoing() {
            for (auto& entry : bridge.pending_)
                if (wait->open && entry.second.wait == wait.get()) entry.second.wait = nullptr;
            bridge.waits_.push_back(std::move(wait));
        }
        Outgoing(const Outgoing&) = delete;
        Outgoing& operator=(const Outgoing&) = delete;
    };

    void role(const std::string& port, const char* role) {
        auto [found, added] = roles_.emplace(port, role);
        if (!added && (std::strcmp(found->second, role) || std::strcmp(role, "wire")))
            SC_REPORT_ERROR("/cosim/bridge", ("port " + port + " has a role already: " + found->second).c_str());
    }

    std::unique_ptr<csa> node_; /* large: not on the stack */
    std::string model_;
    uint64_t lookahead_, tick_;
    uint64_t target_ = 0; /* where the present sc_start ends */
    uint64_t no_counter_ = 0;
    std::vector<std::pair<std::string, std::string>> early_; /* logged before the run was joined */
    bool opened_ = false, started_ = false, waves_asked_ = false;
    sc_core::sc_trace_file* waves_ = nullptr;
    unsigned serving_ = 0; /* accesses that have begun and not been answered */
    csa_msg request_{};
    sc_core::sc_event input_;
    std::map<std::string, const char*> roles_;
    std::map<std::string, detail::AccessPort*> targets_;
    std::map<std::pair<std::string, uint64_t>, std::unique_ptr<Level>> levels_;
    std::vector<std::unique_ptr<Line>> lines_;
    std::vector<std::unique_ptr<sc_core::sc_module>> modules_;
    std::map<uint64_t, detail::Pending> pending_;
    std::vector<std::unique_ptr<detail::Wait>> waits_;
    std::function<uint64_t()> promise_;
    Translate translate_in_, translate_out_;
};

/* Requests from other nodes, as b_transport calls of `socket`. */
template <unsigned WIDTH> class TargetPort : public sc_core::sc_module, public detail::AccessPort {
public:
    tlm_utils::simple_initiator_socket<TargetPort, WIDTH> socket;

    TargetPort(sc_core::sc_module_name name, Bridge& bridge, bool in_order)
        : sc_module(name), socket("socket"), bridge_(bridge), in_order_(in_order) {}

    void receive(detail::Access access) override {
        ++bridge_.serving_;
        queue_.push_back(std::move(access));
        if (in_order_ && busy_) return;
        ++busy_;
        if (idle_.empty()) spawn();
        else {
            idle_.back()->notify();
            idle_.pop_back();
        }
    }

private:
    void spawn() {
        events_.emplace_back(new sc_core::sc_event());
        sc_core::sc_event* wake = events_.back().get();
        sc_core::sc_spawn_options options;
        options.set_stack_size(1 << 18);
        sc_core::sc_spawn([this, wake] { work(*wake); }, sc_core::sc_gen_unique_name("access"), &options);
    }

    void work(sc_core::sc_event& wake) {
        for (;;) {
            while (!queue_.empty()) {
                detail::Access access = std::move(queue_.front());
                queue_.pop_front();
                serve(access);
            }
            --busy_;
            idle_.push_back(&wake);
            sc_core::wait(wake);
        }
    }

    void serve(detail::Access& access) {
        tlm::tlm_generic_payload trans;
        auto* attributes = new Attributes(bridge_.attributes_of(access)); /* trans frees its extensions */
        trans.set_extension(attributes);
        sc_core::sc_time delay = sc_core::SC_ZERO_TIME;
        trans.set_command(access.kind == CSA_READ ? tlm::TLM_READ_COMMAND : tlm::TLM_WRITE_COMMAND);
        trans.set_address(access.addr);
        trans.set_data_ptr(access.data.data());
        trans.set_data_length(access.size);
        trans.set_streaming_width(access.size);
        if (bridge_.translate_in_) bridge_.translate_in_(trans, *attributes);
        socket->b_transport(trans, delay);
        bridge_.reply(access, status_of(trans.get_response_status()), bridge_.after(delay));
        --bridge_.serving_;
    }

    Bridge& bridge_;
    bool in_order_;
    unsigned busy_ = 0;
    std::deque<detail::Access> queue_;
    std::vector<sc_core::sc_event*> idle_;
    std::vector<std::unique_ptr<sc_core::sc_event>> events_;
};

/* b_transport calls of the model, as requests to other nodes. simple_target_socket turns nb_transport_fw into b_transport. */
template <unsigned WIDTH> class InitiatorPort : public sc_core::sc_module {
public:
    tlm_utils::simple_target_socket<InitiatorPort, WIDTH> socket;

    InitiatorPort(sc_core::sc_module_name name, Bridge& bridge, std::vector<std::string> ports)
        : sc_module(name), socket("socket"), bridge_(bridge), ports_(std::move(ports)) {
        socket.register_b_transport(this, &InitiatorPort::b_transport);
    }

private:
    void b_transport(tlm::tlm_generic_payload& trans, sc_core::sc_time& delay) { bridge_.transport(ports_, trans, delay); }

    Bridge& bridge_;
    std::vector<std::string> ports_;
};

template <unsigned WIDTH>
tlm_utils::simple_initiator_socket<TargetPort<WIDTH>, WIDTH>& Bridge::mmio_target(const std::string& port, bool in_order) {
    role(port, "mmio_target");
    auto made = std::make_unique<TargetPort<WIDTH>>(sc_core::sc_gen_unique_name(port.c_str()), *this, in_order);
    auto& socket = made->socket;
    targets_[port] = made.get();
    modules_.push_back(std::move(made));
    return socket;
}

template <unsigned WIDTH>
tlm_utils::simple_target_socket<InitiatorPort<WIDTH>, WIDTH>& Bridge::mmio_initiator(std::vector<std::string> ports) {
    for (const auto& port : ports) role(port, "mmio_initiator");
    auto made = std::make_unique<InitiatorPort<WIDTH>>(sc_core::sc_gen_unique_name(ports.at(0).c_str()), *this, ports);
    auto& socket = made->socket;
    modules_.push_back(std::move(made));
    return socket;
}

}  // namespace cosim
#endif /* COSIM_BRIDGE_H */
