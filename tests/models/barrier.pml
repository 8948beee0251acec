/*
 * The barrier of cosim/core/barrier.py as a Promela model: three workers of one node each, every topology below, every
 * behaviour that keeps its promises, every order of grants and answers, up to the end of time T.
 *
 * Asserted: I1 (nothing reaches a node below its clock), I3 (never: work left, nobody running, nobody granted), I4 and
 * I5 (outputs keep the promise that others were bounded by), and that no event is left behind at the end.
 *
 * Size: -DT=time -DLEFT=messages. Mutants, each of which must fail: -DFORGET (delivered inputs forgotten while a node runs), -DNOKEPT (kept inputs left
 * out of the promise), -DDIRECT (direct latencies without closure), -DNORETURN (own outputs left out without early
 * return), -DNONEXT (DONE without next_event).
 *
 * A run is one step here: what a worker does under a grant is seen by others only when it answers.
 * Sets of times are bit masks; messages of equal arrival are one.
 */
#define N      3
#ifndef T
#define T      7          /* end of the run, exclusive */
#endif
#ifndef LEFT
#define LEFT   2          /* messages of the whole run */
#endif
#define LAST   16         /* no time in any set lies at or above it */
#define NEVER  40
#define BIT(t) (1 << (t))
#define AT(a, b) ((a) * N + (b))
#define MIN(a, b) ((a) < (b) -> (a) : (b))

/* topology */
byte lat[9], dist[9], reaction[N];

/* workers */
byte now[N];
int  kept[N];             /* inputs delivered, not consumed */
int  speaking[N];         /* timers that may send */
int  silent[N];           /* timers that never send */
byte left = LEFT;         /* messages that may still be sent */

/* hub */
byte next_event[N], next_out[N], held[N], bound[N], limit[N];
int  pending[N];
bool running[N];
byte safe[N];             /* bound that worker could be given now */
bool may[N];

byte i, j, k, t, stop, arrival, x, y, dst;
int  out[N];

inline least(set, result) {
    result = 0;
    do
    :: result < LAST && !((set) & BIT(result)) -> result++
    :: else -> break
    od;
    if
    :: result == LAST -> result = NEVER
    :: else
    fi
}

/* base(j) into y; uses x */
inline base(w) {
    least(pending[w], x);
    x = (x == NEVER -> NEVER : x + reaction[w]);
    y = (running[w] -> held[w] : next_out[w]);
    y = MIN(x, y)
}

inline decide() {
    i = 0;
    do
    :: i < N ->
        safe[i] = T;
        j = 0;
        do
        :: j < N ->
            if
            :: j != i ->
                base(j);
#ifdef DIRECT
                y = y + lat[AT(j, i)];
#else
                y = y + dist[AT(j, i)];
#endif
                safe[i] = MIN(safe[i], y)
            :: else
            fi;
            j++
        :: else -> break
        od;
        least(pending[i], x);
        x = MIN(x, next_event[i]);
        may[i] = !running[i] && x < safe[i];
        i++
    :: else -> break
    od;
    i = 0; j = 0; x = 0; y = 0
}

inline give(w) {
    d_step {
        base(w);
        held[w] = y;
#ifdef FORGET
        held[w] = next_out[w];
#endif
        least(pending[w], x);
        assert(x >= now[w]);                                   /* I1 */
        kept[w] = kept[w] | pending[w];
        pending[w] = 0;
        bound[w] = safe[w];
        limit[w] = safe[w];
        running[w] = true;
        x = 0; y = 0
    }
}

/* One message of worker w, sent at t, stamped now or one later. */
inline transmit(w) {
    if
    :: dst = 0 :: dst = 1 :: dst = 2
    fi;
    if
    :: lat[AT(w, dst)] < NEVER ->
        if
        :: arrival = t + lat[AT(w, dst)]
        :: arrival = t + lat[AT(w, dst)] + 1
        fi;
        left--;
        out[dst] = out[dst] | BIT(arrival);
#ifndef NORETURN
        stop = MIN(stop, arrival + reaction[dst] + dist[AT(dst, w)])
#endif
    :: else
    fi
}

/* Executes everything below the bound, or below the way back of what it sent (early return). */
inline execute(w) {
    stop = bound[w];
    t = now[w];
    do
    :: t < stop ->
        if
        :: kept[w] & BIT(t) ->
            kept[w] = kept[w] & ~BIT(t);
            if
            :: speaking[w] = speaking[w] | BIT(t + reaction[w])
            :: skip
            fi
        :: else
        fi;
        if
        :: speaking[w] & BIT(t) ->
            speaking[w] = speaking[w] & ~BIT(t);
            if
            :: left > 0 -> transmit(w)
            :: left > 1 -> transmit(w); transmit(w)
            :: speaking[w] = speaking[w] | BIT(t + 2)
            :: silent[w] = silent[w] | BIT(t + 3)
            :: skip
            fi
        :: else
        fi;
        silent[w] = silent[w] & ~BIT(t);
        t++
    :: else -> break
    od;
    now[w] = MIN(t, stop)
}

inline hear(w) {
    atomic {
        execute(w);
        d_step {
            assert(now[w] <= bound[w]);
            dst = 0;
            do
            :: dst < N ->
                least(out[dst], x);
                assert(x == NEVER || x >= held[w] + dist[AT(w, dst)]);   /* I5 */
                assert(x >= limit[dst] || dst == w);                      /* I4 */
                pending[dst] = pending[dst] | out[dst];
                out[dst] = 0;
                dst++
            :: else -> break
            od;
            report(w);
            next_out[w] = (next_out[w] < held[w] -> held[w] : next_out[w]);
            limit[w] = now[w];
            running[w] = false;
            bound[w] = 0; held[w] = 0;
            dst = 0; t = 0; stop = 0; arrival = 0
        }
    }
}

/* next_event and next_out of worker w; uses x */
inline report(w) {
    least(speaking[w], next_out[w]);
#ifndef NOKEPT
    least(kept[w], x);
    x = (x == NEVER -> NEVER : x + reaction[w]);
    next_out[w] = MIN(next_out[w], x);
#endif
    least(kept[w] | speaking[w] | silent[w], next_event[w]);
#ifdef NONEXT
    next_event[w] = next_out[w];
#endif
    x = 0
}

inline link(a, b, latency) { lat[AT(a, b)] = latency }

/* Shortest paths from a send to an arrival, reactions in between added. */
inline close_distances() {
    k = 0;
    do
    :: k < 9 -> dist[k] = lat[k]; k++
    :: else -> break
    od;
    k = 0;
    do
    :: k < N ->
        i = 0;
        do
        :: i < N ->
            j = 0;
            do
            :: j < N ->
                x = dist[AT(i, k)] + reaction[k] + dist[AT(k, j)];
                dist[AT(i, j)] = MIN(dist[AT(i, j)], x);
                j++
            :: else -> break
            od;
            i++
        :: else -> break
        od;
        k++
    :: else -> break
    od;
    i = 0; j = 0; k = 0; x = 0
}

inline topology() {
    k = 0;
    do
    :: k < 9 -> lat[k] = NEVER; k++
    :: else -> break
    od;
    if
    :: link(0, 1, 1); link(1, 2, 1); link(2, 0, 1)                                     /* ring */
    :: link(0, 1, 1); link(1, 2, 1); link(2, 0, 4); link(0, 2, 6)                      /* short cut through 1 */
    :: link(0, 1, 1); link(1, 0, 1); link(1, 2, 2); link(2, 1, 1); reaction[1] = 1     /* line, slow middle */
    :: link(0, 1, 3); link(1, 0, 1); link(0, 2, 1); link(2, 0, 2); reaction[2] = 2     /* star */
    :: link(0, 1, 1); link(1, 0, 2)                                                    /* pair and a loner */
    fi
}

inline first_timers() {
    i = 0;
    do
    :: i < N ->
        if
        :: speaking[i] = BIT(0)
        :: speaking[i] = BIT(3)
        :: silent[i] = BIT(4)
        :: skip
        fi;
        i++
    :: else -> break
    od;
    i = 0
}

active proctype hub() {
    atomic {
        topology();
        close_distances();
        first_timers();
        report(0); report(1); report(2)
    }
    do
    :: true ->
        d_step { decide() };
        if
        :: may[0] -> give(0)
        :: may[1] -> give(1)
        :: may[2] -> give(2)
        :: running[0] -> hear(0)
        :: running[1] -> hear(1)
        :: running[2] -> hear(2)
        :: !(may[0] || may[1] || may[2] || running[0] || running[1] || running[2]) -> break
        fi
    od;
    atomic {                                                   /* I3: the end, and nothing left below it */
        i = 0;
        do
        :: i < N ->
            least(kept[i] | speaking[i] | silent[i] | pending[i], x);
            assert(x >= T);
            i++
        :: else -> break
        od;
        i = 0
    }
}
