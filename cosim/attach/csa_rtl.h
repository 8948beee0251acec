/* csa_rtl.h: a clocked design as a node, in C++ over csa.h: for Verilator without cocotb, or a cycle model of your own.
 *
 *     #define CSA_IMPLEMENTATION
 *     #include "csa.h"
 *     #include "csa_rtl.h"
 *
 *     struct Mine : csa_rtl::Design { ... };              // clock, settle, step, receive, attention, busy
 *     csa_open_env(&node, ...);
 *     Mine design;
 *     csa_rtl::Clocked(node, design, 1000).serve();
 *     return csa_close(&node);
 *
 * The design's clock runs while the design is busy; when it is not, time is skipped and the node promises never to send without an
 * input. A period begins with the rising edge, its falling edge is in the middle, and at three quarters is the sampling point, at
 * which outputs are read and inputs driven: never at an edge, where the order of events differs between simulators. An input that
 * arrives at t is driven at the first sampling point after t; what is sampled is sent with the time of the rising edge that
 * follows. It is the discipline of cosim.attach.cocotb, and gives the same messages. docs/attach-rtl.md is the tutorial. C++11.
 */
#ifndef CSA_RTL_H
#define CSA_RTL_H

#include "csa.h"

#include <deque>
#include <functional>
#include <utility>

namespace csa_rtl {

/* What the adapter needs of a design. Times are picoseconds. */
struct Design {
    virtual ~Design() {}
    /* Drive the clock; settle() follows. */
    virtual void clock(bool level) = 0;
    /* Evaluate after a change of the clock or of inputs; write waveforms. `time` does not go back. */
    virtual void settle(uint64_t time) = 0;
    /* At a sampling point: read outputs, send what they say with time `edge`, drive inputs. Returns whether an input is active, so
     * that another step must follow one period later. */
    virtual bool step(uint64_t edge) = 0;
    /* An input of the node, at its arrival (node.now). Answer it at once, or queue it for step() and call wake(). */
    virtual void receive(const csa_msg *message) = 0;
    /* Some output wants to be sampled. */
    virtual bool attention() = 0;
    /* With its present inputs, the design has something to do. */
    virtual bool busy() = 0;
    /* For so many rising edges attention() will stay false. */
    virtual uint32_t ahead() { return 0; }
};

class Clocked {
public:
    uint64_t grants = 0, idle_grants = 0; /* idle: the clock stood still throughout, and no input was there */

    /* `period` in ps, a multiple of 4; the clock is low. */
    Clocked(csa &node, Design &design, uint64_t period) : node_(node), design_(design), period_(period), quarter_(period / 4) {
        design_.clock(false);
        settle(0);
    }
    /* Until the end of the run; csa_error() tells what was wrong. */
    void serve() {
        csa_ready(&node_, CSA_NEVER, CSA_NEVER);
        while (csa_wait(&node_) > 0) {
            idle_grants += !running_ && first(csa_peek(&node_), due_) >= node_.stop;
            ++grants;
            advance();
            uint64_t event = promise();
            csa_done(&node_, event, event == CSA_NEVER ? CSA_NEVER : event + quarter_, node_.stop);
        }
    }
    /* Step the design at the first sampling point after node.now: there is something to drive. */
    void wake() { due_ = first(due_, point(node_.now)); }

private:
    static uint64_t first(uint64_t a, uint64_t b) { return a < b ? a : b; }
    /* The first sampling point after a time. */
    uint64_t point(uint64_t after) const {
        uint64_t found = (after + quarter_) / period_ * period_ + 3 * quarter_;
        return sampled_ && found < sampled_ + period_ ? sampled_ + period_ : found;
    }
    void settle(uint64_t time) {
        now_ = time;
        design_.settle(time);
    }
    /* Carry out the edges up to and at a time. */
    void go(uint64_t time) {
        while (running_ && edge_ <= time) {
            design_.clock(level_ = !level_);
            settle(edge_);
            edge_ += period_ / 2;
        }
        now_ = time;
    }
    /* Inputs and sampling points below the limit, in order of time; at one instant inputs come first. */
    void advance() {
        while (!node_.off && !node_.error[0]) {
            uint64_t limit = first(first(csa_peek(&node_), due_), node_.stop);
            if (running_ && run(limit)) continue;
            if (limit >= node_.stop) return;
            if (csa_peek(&node_) <= due_) {
                const csa_msg *message = csa_take(&node_);
                if (message) design_.receive(message);
            } else {
                sample();
            }
        }
    }
    /* Let the clock run below `limit`, or until there is something to do; whether that is before the limit. */
    bool run(uint64_t limit) {
        while (due_ >= limit && due_ > sampled_ + period_) {
            if (design_.attention() || !design_.busy()) {
                due_ = first(due_, point(now_));
                return due_ < limit;
            }
            if (edge_ >= limit) {
                if (now_ < limit - 1) go(limit - 1);
                return false;
            }
            go(edge_);
        }
        return false;
    }
    void sample() {
        uint64_t at = due_;
        if (!running_) running_ = true, level_ = false, edge_ = at + quarter_;
        go(at);
        if (node_.now < at) node_.now = at;
        sampled_ = at;
        due_ = CSA_NEVER;
        bool attention = design_.attention(), busy = design_.busy(); /* before the inputs change */
        bool active = design_.step(at + quarter_);
        settle(at);
        if (attention || active) {
            due_ = at + period_;
        } else if (!busy) {
            running_ = false;
            if (uint64_t *stops = csa_count(&node_, "clock_stops")) ++*stops;
        }
    }
    /* The next own event without an input; what it sends is stamped with the edge a quarter later. */
    uint64_t promise() {
        if (!running_ || due_ != CSA_NEVER) return due_;
        uint64_t now = node_.stop ? node_.stop - 1 : 0, next = point(now);
        uint64_t ahead = ((now + period_ - 1) / period_ + design_.ahead()) * period_ + 3 * quarter_;
        return next > ahead ? next : ahead;
    }

    csa &node_;
    Design &design_;
    uint64_t period_, quarter_;
    bool running_ = false, level_ = false;
    uint64_t now_ = 0, edge_ = 0;
    uint64_t due_ = CSA_NEVER, sampled_ = 0; /* the next sampling point at which there is something to do; the last one */
};

/* Register accesses, one at a time: a request is driven for one period, its response comes one or more periods later.
 *
 * drive(request): to the inputs; NULL: none (all 0). sample(&response): from the outputs; whether there is one.
 * done(response, time): NULL when none came within `timeout` periods. */
template <class Request, class Response> class Registers {
public:
    using Done = std::function<void(const Response *, uint64_t time)>;

    Registers(std::function<void(const Request *)> drive, std::function<bool(Response *)> sample, int timeout = 1000)
        : drive_(drive), sample_(sample), timeout_(timeout) {
        drive_(nullptr);
    }
    void submit(const Request &request, Done done) { waiting_.emplace_back(request, std::move(done)); }
    /* See Design::step. */
    bool step(uint64_t edge) {
        if (open_) {
            ++periods_;
            Response response;
            bool answered = sample_(&response);
            if (answered || periods_ > timeout_) {
                open_ = false;
                Done done = std::move(waiting_.front().second);
                waiting_.pop_front();
                done(answered ? &response : nullptr, edge);
            } else if (periods_ == 1) {
                drive_(nullptr);
            }
        }
        if (!open_) {
            open_ = !waiting_.empty();
            periods_ = 0;
            drive_(open_ ? &waiting_.front().first : nullptr);
        }
        return open_;
    }

private:
    std::function<void(const Request *)> drive_;
    std::function<bool(Response *)> sample_;
    int timeout_, periods_ = 0;
    bool open_ = false;
    std::deque<std::pair<Request, Done>> waiting_; /* the open one is first */
};

/* Completions for the design's own requests, one per period. drive(completion): to the inputs; NULL: none (all 0). */
template <class Completion> class Completions {
public:
    explicit Completions(std::function<void(const Completion *)> drive) : drive_(drive) { drive_(nullptr); }
    void push(const Completion &completion) { waiting_.push_back(completion); }
    /* See Design::step. */
    bool step() {
        bool active = !waiting_.empty();
        drive_(active ? &waiting_.front() : nullptr);
        if (active) waiting_.pop_front();
        return active;
    }

private:
    std::function<void(const Completion *)> drive_;
    std::deque<Completion> waiting_;
};

}  // namespace csa_rtl

#endif /* CSA_RTL_H */
