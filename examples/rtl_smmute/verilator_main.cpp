// smmute.v by Verilator alone as the node `smmute`, over csa.h and csa_rtl.h: what endpoint.py does under cocotb, at a fraction of
// the cost per cycle. `run.py bare` builds and starts it; docs/attach-rtl.md is the tutorial.
#define CSA_IMPLEMENTATION
#include "csa.h"
#include "csa_rtl.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "Vsmmute.h"
#include "verilated.h"
#include "verilated_vcd_c.h"

namespace {

constexpr uint64_t kPeriod = 1000;  // ps
constexpr int kFunctions = 2;
constexpr uint64_t kBarSize[3] = {0x40000, 0x8000, 0x1000};
constexpr uint32_t kConfigSize = 4096, kVectors = 2048;

csa node;  // large: not on the stack

uint64_t& count(const char* name) {
    static uint64_t lost;
    uint64_t* found = csa_count(&node, name);
    return found ? *found : lost;
}

// -- configuration space: what nodes/smmute/config_space.py has, PCI Express Base Specification 7.5 and 7.7 -------------------

class ConfigSpace {
public:
    explicit ConfigSpace(bool pasid) {
        define(0x00, 4, 0xFF8013B5);                      // Device ID, Vendor ID
        define(0x04, 2, 0, 0x0546);                       // Command
        define(0x06, 2, 0x0010);                          // Status: capabilities
        define(0x08, 4, 0xFF00000F);                      // class, revision
        define(0x0C, 1, 0, 0xFF);                         // cache line
        define(0x0E, 1, 0x80);                            // header: multi-function
        for (int n = 0; n < 3; n++) define(0x10 + 8 * n, 8, 0xC, ~(kBarSize[n] - 1) & ~uint64_t(0xF));
        define(0x2C, 4, 0x000013B5);                      // subsystem
        define(0x34, 1, 0x40);                            // capabilities
        define(0x3C, 1, 0, 0xFF);                         // interrupt line
        define(0x40, 2, 0x8010);                          // PCI Express, next is MSI-X
        define(0x42, 2, 2);                               // endpoint, version 2
        define(0x44, 4, 5 | 1 << 15);                     // 4 KiB payload, role-based error reporting
        define(0x48, 2, 5 << 5 | 2 << 12 | 1 << 4 | 1 << 11, 0x78FF);
        define(0x4C, 4, 4 | 16 << 4);                     // x16 at 16 GT/s
        define(0x50, 2, 0, 0x00C0);
        define(0x52, 2, 4 | 16 << 4);
        define(0x80, 2, 0x0011);                          // MSI-X
        define(0x82, 2, kVectors - 1, 0xC000);
        define(0x84, 4, 2);                               // table: BAR 2
        define(0x88, 4, 4);                               // pending bits: BAR 4
        if (pasid) {
            define(0x100, 4, 0x0001001B);
            define(0x104, 2, 20 << 8 | 1 << 2);
            define(0x106, 2, 0, 1);
        }
    }
    uint64_t read(unsigned offset, unsigned size) const {
        uint64_t value = 0;
        for (unsigned i = size; i--;) value = value << 8 | bytes_[offset + i];
        return value;
    }
    void write(unsigned offset, unsigned size, uint64_t value) {
        for (unsigned i = offset; i < offset + size; i++, value >>= 8)
            bytes_[i] = uint8_t((bytes_[i] & ~mask_[i]) | (value & mask_[i]));
    }
    bool memory() const { return read(4, 2) & 2; }
    bool master() const { return read(4, 2) & 4; }
    bool msix_enabled() const { return read(0x82, 2) & 0x8000; }
    bool msix_masked() const { return read(0x82, 2) & 0x4000; }
    bool pasid_enabled() const { return read(0x106, 2) & 1; }
    // The BAR (0, 1, 2: BAR 0, 2, 4) that an access lies in, and the offset; -1: none.
    int decode(uint64_t address, uint64_t size, uint64_t* offset) const {
        for (int n = 0; memory() && n < 3; n++) {
            uint64_t base = read(0x10 + 8 * n, 8) & ~uint64_t(0xF);
            if (base <= address && address - base + size <= kBarSize[n]) return *offset = address - base, n;
        }
        return -1;
    }

private:
    void define(unsigned offset, unsigned size, uint64_t value, uint64_t writable = 0) {
        for (unsigned i = offset; i < offset + size; i++, value >>= 8, writable >>= 8)
            bytes_[i] = uint8_t(value), mask_[i] = uint8_t(writable);
    }
    uint8_t bytes_[kConfigSize] = {}, mask_[kConfigSize] = {};
};

// -- the design's channels ------------------------------------------------------------------------------------------------------

// One word on the register channel, and its response.
struct Access {
    bool write, secure;
    int function, space;
    uint32_t address, data;
};
struct Answer {
    uint32_t value;
    bool ignored;
};
using Registers = csa_rtl::Registers<Access, Answer>;

class Dma {
public:
    explicit Dma(Vsmmute& top) : top_(top), completions_([this](const Completion* c) { drive(c); }) { top_.dma_ready = 1; }
    bool step(uint64_t edge) {
        if (top_.dma_valid) issue(edge);
        return completions_.step();
    }
    void completed(const csa_msg* m) {
        auto found = tags_.find(m->tag);
        if (found == tags_.end()) return (void)csa_fail(&node, "a completion must answer an open request");
        Completion c = {found->second, m->status != CSA_OKAY, {}};
        tags_.erase(found);
        if (m->bytes) memcpy(c.data, m->bytes, m->size < 64 ? m->size : 64);
        else memcpy(c.data, &m->data, sizeof m->data);
        completions_.push(c);
    }

private:
    struct Completion {
        uint8_t tag;
        bool error;
        uint32_t data[16];
    };
    void issue(uint64_t edge) {
        const char* port = top_.dma_fn ? "dma1" : "dma0";
        uint32_t attr = top_.dma_attr;
        if (top_.dma_pasid_valid) attr |= 1u << 8 | uint32_t(top_.dma_pasid) << 12;  // nodes/arch/pcie.py
        uint64_t tag = 0, value;
        uint32_t data[16];
        for (int i = 0; i < 16; i++) data[i] = top_.dma_wdata[i];
        memcpy(&value, data, sizeof value);
        int status = top_.dma_write
            ? csa_write(&node, port, top_.dma_addr, top_.dma_size, value, data, int(attr), edge, &tag)
            : csa_read(&node, port, top_.dma_addr, top_.dma_size, int(attr), edge, &tag);
        if (status == 0) {
            tags_[tag] = top_.dma_tag;
        } else {  // nothing at that address
            ++count("decode_errors");
            completions_.push({top_.dma_tag, true, {}});
        }
    }
    void drive(const Completion* c) {
        top_.cpl_valid = c != nullptr;
        top_.cpl_tag = c ? c->tag : 0;
        top_.cpl_error = c && c->error;
        for (int i = 0; i < 16; i++) top_.cpl_data[i] = c ? c->data[i] : 0;
    }
    Vsmmute& top_;
    csa_rtl::Completions<Completion> completions_;
    std::map<uint64_t, uint8_t> tags_;  // of the bus -> of the design
};

// The side bands: what configuration space says, and the events that are counted.
class Controller {
public:
    Controller(Vsmmute& top, const std::vector<ConfigSpace>& functions) : top_(top), functions_(functions) {
        top_.cfg_latency = uint32_t(csa_param(&node, "engine_latency", 1000000) / kPeriod);
        top_.cfg_rate = uint16_t(csa_param(&node, "engine_bytes_per_ns", 8) * kPeriod / 1000);
        drive();
    }
    bool step() {
        count("transactions") += top_.ev_started;
        count("misconfigured") += top_.ev_misconfigured;
        count("errors") += top_.ev_error;
        count("msis") += top_.ev_msi;
        count("msis_aborted") += top_.ev_msi_aborted;
        return drive();
    }

private:
    bool drive() {
        int master = 0, enable = 0, mask = 0, pasid = 0;
        for (int n = 0; n < kFunctions; n++) {
            master |= functions_[n].master() << n;
            enable |= functions_[n].msix_enabled() << n;
            mask |= functions_[n].msix_masked() << n;
            pasid |= functions_[n].pasid_enabled() << n;
        }
        int all = master | enable << 2 | mask << 4 | pasid << 6;
        if (all == driven_) return false;
        driven_ = all;
        top_.cfg_master = master;
        top_.cfg_msix_enable = enable;
        top_.cfg_msix_mask = mask;
        top_.cfg_pasid = pasid;
        return true;
    }
    Vsmmute& top_;
    const std::vector<ConfigSpace>& functions_;
    int driven_ = -1;
};

// -- the node -------------------------------------------------------------------------------------------------------------------

class Endpoint : public csa_rtl::Design {
public:
    Endpoint(Vsmmute& top, VerilatedVcdC* trace)
        : top_(top), trace_(trace), functions_(kFunctions, ConfigSpace(csa_param(&node, "pasid", 0))), first_rid_(uint32_t(
              csa_param(&node, "bus", 8) << 8 | csa_param(&node, "device", 0) << 3)), controller_(top, functions_), dma_(top),
          registers_([this](const Access* a) { drive(a); }, [this](Answer* a) { return sample(a); }), clocked_(node, *this, kPeriod) {}

    void serve() {
        clocked_.serve();
        printf("end at %llu ps after %llu grants, %llu of them idle\n", (unsigned long long)node.now,
               (unsigned long long)clocked_.grants, (unsigned long long)clocked_.idle_grants);
    }
    void clock(bool level) override { top_.clk = level; }
    void settle(uint64_t time) override {
        top_.eval();
        if (trace_) trace_->dump(time);
    }
    bool attention() override { return top_.attention; }
    bool busy() override { return top_.busy; }
    uint32_t ahead() override { return top_.ahead; }
    bool step(uint64_t edge) override {
        bool active = controller_.step();
        active |= dma_.step(edge);
        active |= registers_.step(edge);
        return active;
    }
    void receive(const csa_msg* m) override {
        const char* port = node.links[m->link].port;
        if (!strcmp(port, "ecam")) return configuration(m);
        if (!strcmp(port, "mmio")) return memory(m);
        dma_.completed(m);
        clocked_.wake();
    }

private:
    void drive(const Access* a) {
        top_.reg_valid = a != nullptr;
        top_.reg_write = a && a->write;
        top_.reg_secure = a && a->secure;
        top_.reg_fn = a ? a->function : 0;
        top_.reg_space = a ? a->space : 0;
        top_.reg_addr = a ? a->address : 0;
        top_.reg_wdata = a ? a->data : 0;
    }
    bool sample(Answer* a) const {
        *a = {top_.rsp_rdata, bool(top_.rsp_ignored)};
        return top_.rsp_valid;
    }
    void refuse(const csa_msg* m, const char* counter, int status) {
        ++count(counter);
        csa_reply(&node, m, status, 0, node.now);
    }
    void configuration(const csa_msg* m) {
        if ((m->size != 1 && m->size != 2 && m->size != 4) || m->addr % m->size) return refuse(m, "bus_errors", CSA_SLVERR);
        uint64_t n = m->addr / kConfigSize - first_rid_;
        unsigned offset = unsigned(m->addr % kConfigSize);
        if (m->kind == CSA_READ) {
            csa_reply(&node, m, CSA_OKAY, n < kFunctions ? functions_[n].read(offset, m->size) : ~uint64_t(0), node.now);
            return;
        }
        if (n < kFunctions) {
            functions_[n].write(offset, m->size, m->data);
            clocked_.wake();
        }
        csa_reply(&node, m, CSA_OKAY, 0, node.now);
    }
    void memory(const csa_msg* m) {
        uint64_t offset;
        for (int n = 0; n < kFunctions; n++) {
            int bar = functions_[n].decode(m->addr, m->size, &offset);
            if (bar >= 0) return access(m, n, bar, uint32_t(offset));
        }
        refuse(m, "unclaimed_accesses", CSA_DECERR);
    }
    // An access as words; those that are commands come last.
    void access(const csa_msg* m, int function, int bar, uint32_t offset) {
        uint32_t last = offset + m->size - 1;
        if (offset % 4 || m->size % 4 || (bar == 0 && offset >> 16 != last >> 16)) return refuse(m, "bus_errors", CSA_SLVERR);
        auto transfer = std::make_shared<Transfer>();
        transfer->request = *m;
        transfer->words.resize(m->size / 4);
        transfer->left = m->size / 4;
        for (bool commands : {false, true})
            for (uint32_t at = 0; at < m->size; at += 4) {
                bool command = bar == 0 && !((offset + at) & 0x10000) && (offset + at) % 128 == 0;
                if (command != commands) continue;
                uint32_t word = 0;
                if (m->kind != CSA_READ && m->bytes) memcpy(&word, m->bytes + at, 4);
                else if (m->kind != CSA_READ) word = uint32_t(m->data >> 8 * at);
                registers_.submit({m->kind != CSA_READ, !(m->attr & CSA_NONSECURE), function, bar, offset + at, word},
                                  [transfer, at](const Answer* answer, uint64_t time) { transfer->done(at, answer, time); });
            }
        clocked_.wake();
    }
    struct Transfer {
        csa_msg request;
        std::vector<uint32_t> words;
        uint32_t left;
        bool failed = false;
        void done(uint32_t at, const Answer* answer, uint64_t time) {
            if (answer) words[at / 4] = answer->value;
            failed |= !answer;
            count("ignored_writes") += answer && answer->ignored;
            if (--left) return;
            if (failed) {
                ++count("bus_errors");
                csa_reply(&node, &request, CSA_SLVERR, 0, time);
            } else if (words.size() > 2) {
                csa_reply_bytes(&node, &request, words.data(), time);
            } else {
                csa_reply(&node, &request, CSA_OKAY, words[0] | (words.size() > 1 ? uint64_t(words[1]) << 32 : 0), time);
            }
        }
    };

    Vsmmute& top_;
    VerilatedVcdC* trace_;
    std::vector<ConfigSpace> functions_;
    uint64_t first_rid_;
    Controller controller_;
    Dma dma_;
    Registers registers_;
    csa_rtl::Clocked clocked_;
};

}  // namespace

int main() {
    static const csa_port ports[] = {
        {"ecam", "mmio_target"}, {"mmio", "mmio_target"}, {"dma0", "mmio_initiator"}, {"dma1", "mmio_initiator"}};
    const char* wave = getenv("COSIM_WAVE");
    VerilatedContext context;
    context.traceEverOn(wave != nullptr);
    Vsmmute top(&context);
    VerilatedVcdC trace;
    if (wave) {
        top.trace(&trace, 99);
        trace.open((std::string(wave) + ".vcd").c_str());
        if (!trace.isOpen()) return fprintf(stderr, "%s.vcd cannot be written\n", wave), 1;
    }
    csa_capability("wave");
    if (csa_open_env(&node, ports, 4, 0, 0, "smmute.v, Verilator " VERILATOR_VERSION)) return csa_complain(&node);
    if (csa_param(&node, "functions", 2) != kFunctions || csa_param(&node, "bar0_size", kBarSize[0]) != kBarSize[0]) {
        csa_fail(&node, "smmute.v has 2 functions and a BAR 0 of 0x40000 bytes; the topology's parameters are others");
    } else {
        Endpoint(top, wave ? &trace : nullptr).serve();
    }
    trace.close();
    top.final();
    if (csa_error(&node)[0]) csa_complain(&node);
    return csa_close(&node);
}
