/* csa.h: a C or C++ program as a node of a cosim run. One header over libzmq alone; no allocation, static buffers.
 *
 * In one source file:      #define CSA_IMPLEMENTATION
 *                          #include "csa.h"
 * everywhere else:         #include "csa.h"
 * build:                   cc node.c -lzmq
 *
 *     static csa node;                                    // large: not on the stack
 *     static const csa_port ports[] = {{"bus", "mmio_target"}};
 *     if (csa_open_env(&node, ports, 1, 0, 0, "1.0")) return csa_complain(&node);
 *     csa_ready(&node, CSA_NEVER, CSA_NEVER);
 *     while (csa_wait(&node) > 0) {                       // a grant: execute everything below node.stop
 *         const csa_msg *m;
 *         while ((m = csa_take(&node)))                   // inputs, in order; node.now is their time
 *             if (m->kind == CSA_READ) csa_reply(&node, m, CSA_OKAY, value_at(m->addr), node.now);
 *         csa_done(&node, CSA_NEVER, CSA_NEVER, node.stop);
 *     }
 *     return csa_close(&node);
 *
 * Times are picoseconds. Every function returns 0 (csa_wait: 1) when it went well and -1 after an error; the first error stays,
 * csa_error() tells it, and later calls do nothing. docs/attach.md is the tutorial, docs/protocol.md the specification.
 * C99, C++11. Not for several threads at once on one csa.
 */
#ifndef CSA_H
#define CSA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Limits; set them before the header is included. */
#ifndef CSA_MAX_FRAME
#define CSA_MAX_FRAME (1024 * 1024) /* bytes of a frame that this node sends; 16 MiB is the protocol's limit */
#endif
#ifndef CSA_MAX_KEPT
#define CSA_MAX_KEPT 256 /* inputs that this node holds at one time */
#endif
#define CSA_MAX_RECEIVED (16 * 1024 * 1024)
#define CSA_MAX_MESSAGES 65536
#define CSA_MAX_ARRAY 131072
#define CSA_MAX_MAP 4096
#define CSA_MAX_DATA 4096 /* bytes and text of one message */
#define CSA_MAX_FIELDS 12
#define CSA_MAX_LINKS 128
#define CSA_MAX_REGIONS 128
#define CSA_MAX_KINDS 256
#define CSA_MAX_COUNTERS 32
#define CSA_MAX_EPOCHS 32
#define CSA_MAX_SIDE 16384
#define CSA_MAX_PARAMS 16384
#define CSA_MAX_ATTRIBUTES 16384 /* bytes of the attributes of all links */
#define CSA_MAX_DEPTH 32
#define CSA_NAME 64
#define CSA_MAX_CAPS 4

#define CSA_NEVER ((uint64_t)0x7fffffffffffffff)

enum { CSA_OKAY = 0, CSA_EXOKAY = 1, CSA_SLVERR = 2, CSA_DECERR = 3 };
enum { CSA_PRIVILEGED = 1, CSA_NONSECURE = 2, CSA_INSTRUCTION = 4 };
/* Kinds of the bus, wire and power protocols; csa_kind() finds those of others by name. */
enum { CSA_READ = 64, CSA_WRITE = 65, CSA_WRITE_POSTED = 66, CSA_COMPLETION = 67, CSA_LEVEL = 128, CSA_OFF = 192, CSA_EPOCH = 193 };
enum { CSA_HELLO = 1, CSA_WELCOME, CSA_READY, CSA_GRANT, CSA_DONE, CSA_LOG, CSA_ERROR, CSA_BYE, CSA_REFUSED, CSA_QUERY, CSA_STATUS };

typedef struct csa_port {
    const char *name, *role; /* role: mmio_target, mmio_initiator, wire or channel:PROTOCOL */
} csa_port;

typedef enum csa_type { CSA_T_NIL, CSA_T_BOOL, CSA_T_INT, CSA_T_NEGATIVE, CSA_T_FLOAT, CSA_T_STR, CSA_T_BIN, CSA_T_ARRAY, CSA_T_MAP } csa_type;

/* A value: u of BOOL, INT and (two's complement) NEGATIVE; size bytes at data of STR and BIN; size items of ARRAY and MAP. */
typedef struct csa_value {
    csa_type type;
    uint64_t u;
    const unsigned char *data;
    uint32_t size;
} csa_value;

typedef struct csa_link {
    uint64_t id, latency, returns;
    int64_t peer_id;
    int out;
    uint32_t attributes_at, attributes_size; /* private */
    char port[CSA_NAME], peer[2 * CSA_NAME];
} csa_link;

typedef struct csa_region {
    uint64_t base, size, link, offset;
    char port[CSA_NAME];
} csa_region;

typedef struct csa_row {
    int code, priority, fields;
    char name[CSA_NAME];
} csa_row;

/* An input. `link` is an index into csa.links. tag, addr, size, attr and data are filled in for bus kinds: data is the value of
 * 1, 2, 4 and 8 bytes, `bytes` points at those of other sizes. field[] has every field. Valid until the next csa_wait. */
typedef struct csa_msg {
    uint64_t arrival, seq;
    int link, kind, priority, fields;
    uint64_t tag, addr, data;
    uint32_t size, attr, status;
    const unsigned char *bytes;
    csa_value field[CSA_MAX_FIELDS];
    unsigned char store[CSA_MAX_DATA];
} csa_msg;

typedef struct csa {
    uint64_t now;    /* time of the input taken last, or of the grant's begin */
    uint64_t stop;   /* execute everything below it; a send may lower it, an error makes it 0 */
    uint64_t seed;   /* of the run */
    uint64_t reaction;
    uint64_t wall_limit_ms;
    int off;         /* the power is off: nothing more is sent */
    int64_t node;
    char name[CSA_NAME];
    int nlinks, nregions, nkinds, ninitiators;
    /* private */
    void *context, *socket, *monitor;
    char error[320];
    uint64_t begun, off_at, grant, seq, tag, events, side_number;
    int granted, over;
    int nkept, nspare, ntaken, ncounters, nepochs;
    uint32_t side_count, records_count;
    size_t params_size, attributes_size, side_size, records_size, frame_size;
    /* from here on nothing needs to be cleared */
    csa_link links[CSA_MAX_LINKS];
    char initiators[CSA_MAX_LINKS][CSA_NAME];
    csa_region regions[CSA_MAX_REGIONS];
    csa_row kinds[CSA_MAX_KINDS];
    int kept[CSA_MAX_KEPT], spare[CSA_MAX_KEPT], taken[CSA_MAX_KEPT];
    struct { const char *name; uint64_t value; } counters[CSA_MAX_COUNTERS];
    struct { uint64_t number; int n; uint64_t value[CSA_MAX_COUNTERS]; } epochs[CSA_MAX_EPOCHS];
    csa_msg pool[CSA_MAX_KEPT];
    unsigned char params[CSA_MAX_PARAMS];
    unsigned char attributes[CSA_MAX_ATTRIBUTES];
    unsigned char side[CSA_MAX_SIDE];
    unsigned char records[CSA_MAX_FRAME / 2];
    unsigned char frame[CSA_MAX_FRAME]; /* the frame sent last, frame_size bytes */
} csa;

/* Join a run: connect, HELLO, WELCOME. quantum_ps 0: none. `model` says what this is, for the record. */
int csa_open(csa *c, const char *endpoint, const char *name, const char *token, const csa_port *ports, int nports,
             uint64_t lookahead_ps, uint64_t quantum_ps, const char *model);
/* The same, as told by COSIM_ENDPOINT, COSIM_NAME, COSIM_TOKEN_FILE and, over tcp, COSIM_CREDENTIAL. */
int csa_open_env(csa *c, const csa_port *ports, int nports, uint64_t lookahead_ps, uint64_t quantum_ps, const char *model);
/* Before csa_open: what this program can, for its HELLO, such as "wave"; `name` must stay. -1: more than CSA_MAX_CAPS. */
int csa_capability(const char *name);
/* Before csa_open with an endpoint tcp://ADDRESS:PORT: the file with this node's key. -1: it can't be read, is open to others
 * than its owner, or holds no credential. csa_open forgets the key as soon as libzmq has it. */
int csa_credential(const char *path);
/* Reset is done: first own event, and earliest send without an input. */
int csa_ready(csa *c, uint64_t next_event, uint64_t next_out);
/* Block until the next grant: 1; 0: the run is over; -1: an error. */
int csa_wait(csa *c);
/* The next input below c->stop, NULL when there is none. */
const csa_msg *csa_take(csa *c);
/* Arrival of the next input that this node holds, CSA_NEVER when it holds none. */
uint64_t csa_peek(const csa *c);
/* Send a message of any kind at time `at` by `port`; `peer` (node or node.port) only when the port has several. */
int csa_send(csa *c, const char *port, const char *peer, int kind, const csa_value *fields, int n, uint64_t at);
/* Complete a request (nothing happens for a posted write). csa_reply_bytes: for reads of other sizes than 1, 2, 4 and 8. */
int csa_reply(csa *c, const csa_msg *request, int status, uint64_t data, uint64_t at);
int csa_reply_bytes(csa *c, const csa_msg *request, const void *data, uint64_t at);
/* Bus requests of an initiator; `tag` (may be NULL) gets the tag that the completion carries. 1: no region at that address.
 * size 1, 2, 4 or 8: `value` is written; other sizes: `bytes`. */
int csa_read(csa *c, const char *port, uint64_t address, uint32_t size, int attr, uint64_t at, uint64_t *tag);
int csa_write(csa *c, const char *port, uint64_t address, uint32_t size, uint64_t value, const void *bytes, int attr, uint64_t at,
              uint64_t *tag);
int csa_post(csa *c, const char *port, uint64_t address, uint32_t size, uint64_t value, const void *bytes, int attr, uint64_t at);
/* Drive a level line. */
int csa_level(csa *c, const char *port, const char *peer, uint64_t line, int level, uint64_t at);
/* Answer the grant: everything below `now` (c->stop, or less) is executed; the next own event; the earliest later send without a
 * new input, a promise. Inputs that are held are accounted for here; those below `now` must have been taken. */
int csa_done(csa *c, uint64_t next_event, uint64_t next_out, uint64_t now);
/* A counter, reported as NODE.NAME; `name` must stay. NULL when there are too many. */
uint64_t *csa_count(csa *c, const char *name);
/* An integer parameter of the topology; `otherwise` when there is none of that name. */
uint64_t csa_param(const csa *c, const char *name, uint64_t otherwise);
/* An integer attribute that the topology gives a link, such as stream_id; `link` is an index into csa.links. */
uint64_t csa_link_attribute(const csa *c, int link, const char *name, uint64_t otherwise);
/* A log event at c->now. */
int csa_log(csa *c, const char *event, const char *text);
/* Number of a kind such as "gic_net.SetLpi"; -1 when no port of this node carries it. */
int csa_kind(const csa *c, const char *name);
/* End the run: this node has failed. */
int csa_fail(csa *c, const char *what);
/* Close; returns 0, or 1 when there was an error. */
int csa_close(csa *c);
const char *csa_error(const csa *c);
/* Write the error to stderr; returns 1, for main(). */
int csa_complain(const csa *c);
/* Whether bytes are a frame (0) or not (-1, `error` of 320 bytes says why); type may be NULL. Bytes of any kind are safe. */
int csa_check_frame(const void *data, size_t size, int *type, char *error);
int csa_check_blob(const void *data, size_t size, char *error);
/* Take a GRANT or BYE frame, or the plan of a WELCOME, as csa_wait and csa_open do; for tests. 0 (1: a grant, 2: only inputs of
 * the next one) or -1. */
int csa_take_frame(csa *c, const void *data, size_t size);
int csa_take_plan(csa *c, const void *data, size_t size);
csa_value csa_int(uint64_t value);
csa_value csa_bin(const void *data, uint32_t size);
csa_value csa_str(const char *text);

#ifdef __cplusplus
}
#endif
#endif /* CSA_H */

#ifdef CSA_IMPLEMENTATION
#ifndef CSA_IMPLEMENTED
#define CSA_IMPLEMENTED

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zmq.h>

#ifdef __cplusplus
extern "C" {
#endif

/* -- reading msgpack --------------------------------------------------------------------------------------------------- */

typedef struct csa__in {
    const unsigned char *p, *end;
    const char *bad; /* the rule that was broken, or NULL */
} csa__in;

static uint64_t csa__big(const unsigned char *p, int n) {
    uint64_t v = 0;
    while (n--) v = v << 8 | *p++;
    return v;
}

static int csa__bad(csa__in *in, const char *why) {
    if (!in->bad) in->bad = why;
    return -1;
}

static int csa__utf8(const unsigned char *p, uint32_t n) {
    uint32_t i = 0;
    while (i < n) {
        unsigned char b = p[i++];
        uint32_t more = b < 0x80 ? 0 : b < 0xc2 ? 4 : b < 0xe0 ? 1 : b < 0xf0 ? 2 : b < 0xf5 ? 3 : 4, k;
        if (more == 4 || n - i < more) return -1;
        if (more > 1) {
            unsigned char second = p[i];
            if ((b == 0xe0 && second < 0xa0) || (b == 0xed && second > 0x9f) || (b == 0xf0 && second < 0x90) ||
                (b == 0xf4 && second > 0x8f))
                return -1;
        }
        for (k = 0; k < more; k++)
            if ((p[i + k] & 0xc0) != 0x80) return -1;
        i += more;
    }
    return 0;
}

/* The next value; of arrays and maps the head only. */
static int csa__next(csa__in *in, csa_value *v) {
    /* width of the length or number that follows c4..df, 0: none of ours */
    static const unsigned char width[28] = {1, 2, 4, 0, 0, 0, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4};
    unsigned char b;
    int n;
    uint64_t u;
    v->data = NULL;
    v->size = 0;
    v->u = 0;
    v->type = CSA_T_NIL;
    if (in->bad) return -1;
    if (in->p >= in->end) return csa__bad(in, "msgpack must not be cut short");
    b = *in->p++;
    if (b < 0x80) { v->type = CSA_T_INT; v->u = b; return 0; }
    if (b >= 0xe0) { v->type = CSA_T_NEGATIVE; v->u = (uint64_t)(int64_t)(signed char)b; return 0; }
    if (b < 0x90) { v->type = CSA_T_MAP; v->size = b & 15; return 0; }
    if (b < 0xa0) { v->type = CSA_T_ARRAY; v->size = b & 15; return 0; }
    if (b < 0xc0) { v->type = CSA_T_STR; v->size = b & 31; }
    else if (b == 0xc0) return 0;
    else if (b == 0xc2 || b == 0xc3) { v->type = CSA_T_BOOL; v->u = b & 1; return 0; }
    else {
        n = b < 0xc4 ? 0 : width[b - 0xc4];
        if (!n) return csa__bad(in, "msgpack must be nil, bool, int, float, bin, str, array or map");
        if (in->end - in->p < n) return csa__bad(in, "msgpack must not be cut short");
        u = csa__big(in->p, n);
        in->p += n;
        if (b <= 0xc6) v->type = CSA_T_BIN;
        else if (b <= 0xcb) { v->type = CSA_T_FLOAT; return 0; }
        else if (b <= 0xcf) { v->type = CSA_T_INT; v->u = u; return 0; }
        else if (b <= 0xd3) {
            if (n < 8 && u >> (8 * n - 1)) u |= ~(uint64_t)0 << (8 * n);
            v->type = u >> 63 ? CSA_T_NEGATIVE : CSA_T_INT;
            v->u = u;
            return 0;
        }
        else if (b <= 0xdb) v->type = CSA_T_STR;
        else v->type = b <= 0xdd ? CSA_T_ARRAY : CSA_T_MAP;
        v->size = (uint32_t)u;
    }
    if (v->type == CSA_T_ARRAY || v->type == CSA_T_MAP) {
        if (v->size > (v->type == CSA_T_ARRAY ? CSA_MAX_ARRAY : CSA_MAX_MAP)) return csa__bad(in, "array or map must be within the limits");
        return 0;
    }
    if ((uint64_t)(in->end - in->p) < v->size) return csa__bad(in, "msgpack must not be cut short");
    v->data = in->p;
    in->p += v->size;
    if (v->type == CSA_T_STR && csa__utf8(v->data, v->size)) return csa__bad(in, "text must be UTF-8");
    return 0;
}

/* Skip what follows a head: the items of an array or map. */
static int csa__skip_items(csa__in *in, const csa_value *head, int depth) {
    csa_value v;
    uint32_t i, n = head->type == CSA_T_MAP ? 2 * head->size : head->type == CSA_T_ARRAY ? head->size : 0;
    if (depth > CSA_MAX_DEPTH) return csa__bad(in, "values must not nest that deep");
    for (i = 0; i < n; i++) {
        if (csa__next(in, &v)) return -1;
        if (head->type == CSA_T_MAP && !(i & 1) && v.type != CSA_T_STR && v.type != CSA_T_BIN)
            return csa__bad(in, "keys of a map must be texts");
        if (csa__skip_items(in, &v, depth + 1)) return -1;
    }
    return 0;
}

static int csa__skip(csa__in *in) {
    csa_value v;
    return csa__next(in, &v) ? -1 : csa__skip_items(in, &v, 0);
}

/* A value of a type; CSA_T_INT is 0 to 2**63 - 1. */
static int csa__want(csa__in *in, csa_type type, csa_value *v) {
    if (csa__next(in, v)) return -1;
    if (v->type != type) return csa__bad(in, "fields must have the types of their frame");
    if (type == CSA_T_INT && v->u > CSA_NEVER) return csa__bad(in, "numbers must be in 0..2**63-1");
    return 0;
}

static int csa__array(csa__in *in, uint32_t n) {
    csa_value v;
    if (csa__want(in, CSA_T_ARRAY, &v)) return -1;
    return v.size == n ? 0 : csa__bad(in, "arrays must have the lengths of their frame");
}

static uint64_t csa__uint(csa__in *in) {
    csa_value v;
    return csa__want(in, CSA_T_INT, &v) ? 0 : v.u;
}

static void csa__name(csa__in *in, char *to, size_t room) {
    csa_value v;
    to[0] = 0;
    if (csa__want(in, CSA_T_STR, &v)) return;
    if (v.size >= room || memchr(v.data, 0, v.size)) { csa__bad(in, "names must be shorter"); return; }
    memcpy(to, v.data, v.size);
    to[v.size] = 0;
}

/* Fields by shape: i number, s text, b bytes, a any array, m map, n bytes or nil, G and D: batches of GRANT and DONE. */
static int csa__fields(csa__in *in, const char *shape) {
    csa_value v;
    uint32_t i;
    for (; *shape; shape++) {
        if (*shape == 'i') { if (csa__want(in, CSA_T_INT, &v)) return -1; }
        else if (*shape == 's') { if (csa__want(in, CSA_T_STR, &v)) return -1; }
        else if (*shape == 'b') { if (csa__want(in, CSA_T_BIN, &v)) return -1; }
        else if (*shape == 'n') {
            if (csa__next(in, &v)) return -1;
            if (v.type != CSA_T_NIL && v.type != CSA_T_BIN) return csa__bad(in, "fields must have the types of their frame");
        } else {
            if (csa__want(in, *shape == 'm' ? CSA_T_MAP : CSA_T_ARRAY, &v)) return -1;
            if (*shape == 'a' || *shape == 'm') { if (csa__skip_items(in, &v, 0)) return -1; }
            else
                for (i = 0; i < v.size; i++)
                    if (csa__array(in, *shape == 'G' ? 2 : 4) || csa__fields(in, *shape == 'G' ? "ib" : "iiib")) return -1;
        }
    }
    return 0;
}

static const char *csa__shape(int type) {
    static const char *const shapes[] = {"", "assim", "aba", "ii", "iiG", "iiiiiDn", "b", "ssiss", "sn", "ss", "ii", "ib"};
    return type >= 1 && type <= 11 ? shapes[type] : NULL;
}

static int csa__say(char *error, const char *why) {
    if (error) snprintf(error, 320, "%s", why);
    return -1;
}

int csa_check_frame(const void *data, size_t size, int *type, char *error) {
    const unsigned char *p = (const unsigned char *)data;
    csa__in in;
    const char *shape;
    if (type) *type = 0;
    if (size > CSA_MAX_RECEIVED) return csa__say(error, "frame must be within the limits");
    if (size < 8 || memcmp(p, "CSA1", 4)) return csa__say(error, "frame must begin with CSA1");
    if (p[5] | p[6] | p[7]) return csa__say(error, "flags and reserved bytes must be 0");
    shape = csa__shape(p[4]);
    if (!shape) return csa__say(error, "frame type must be one of 1 to 11");
    if (type) *type = p[4];
    in.p = p + 8;
    in.end = p + size;
    in.bad = NULL;
    csa__array(&in, (uint32_t)strlen(shape));
    csa__fields(&in, shape);
    if (!in.bad && in.p != in.end) csa__bad(&in, "nothing must follow the body");
    return in.bad ? csa__say(error, in.bad) : 0;
}

/* -- the error, names ---------------------------------------------------------------------------------------------------- */

static int csa__fail(csa *c, const char *format, ...) {
    va_list args;
    if (!c->error[0]) {
        va_start(args, format);
        vsnprintf(c->error, sizeof c->error, format, args);
        va_end(args);
    }
    c->stop = 0; /* a loop over what lies below it ends, and csa_wait says the rest */
    return -1;
}

const char *csa_error(const csa *c) { return c->error; }

int csa_complain(const csa *c) {
    fprintf(stderr, "%s: %s\n", c->name, c->error[0] ? c->error : "no error");
    return 1;
}

csa_value csa_int(uint64_t value) {
    csa_value v;
    v.type = CSA_T_INT; v.u = value; v.data = NULL; v.size = 0;
    return v;
}

csa_value csa_bin(const void *data, uint32_t size) {
    csa_value v;
    v.type = CSA_T_BIN; v.u = 0; v.data = (const unsigned char *)data; v.size = size;
    return v;
}

csa_value csa_str(const char *text) {
    csa_value v = csa_bin(text, (uint32_t)strlen(text));
    v.type = CSA_T_STR;
    return v;
}

/* -- writing msgpack ----------------------------------------------------------------------------------------------------- */

typedef struct csa__out {
    unsigned char *p, *end;
    int full;
} csa__out;

static void csa__byte(csa__out *o, unsigned b) {
    if (o->p < o->end) *o->p++ = (unsigned char)b;
    else o->full = 1;
}

static void csa__raw(csa__out *o, const void *data, size_t n) {
    if ((size_t)(o->end - o->p) < n) { o->full = 1; return; }
    if (n) memcpy(o->p, data, n);
    o->p += n;
}

static void csa__tail(csa__out *o, uint64_t u, int n) {
    while (n--) csa__byte(o, (unsigned)(u >> 8 * n & 255));
}

static void csa__put_int(csa__out *o, uint64_t u) {
    if (u < 0x80) csa__byte(o, (unsigned)u);
    else if (u < 0x100) { csa__byte(o, 0xcc); csa__tail(o, u, 1); }
    else if (u < 0x10000) { csa__byte(o, 0xcd); csa__tail(o, u, 2); }
    else if (u < (uint64_t)1 << 32) { csa__byte(o, 0xce); csa__tail(o, u, 4); }
    else { csa__byte(o, 0xcf); csa__tail(o, u, 8); }
}

static void csa__put_negative(csa__out *o, uint64_t u) {
    int64_t i = (int64_t)u;
    if (i >= -32) csa__byte(o, (unsigned)(u & 255));
    else if (i >= -128) { csa__byte(o, 0xd0); csa__tail(o, u, 1); }
    else if (i >= -32768) { csa__byte(o, 0xd1); csa__tail(o, u, 2); }
    else if (i >= -(int64_t)0x80000000) { csa__byte(o, 0xd2); csa__tail(o, u, 4); }
    else { csa__byte(o, 0xd3); csa__tail(o, u, 8); }
}

static void csa__put_array(csa__out *o, uint32_t n) {
    if (n < 16) csa__byte(o, 0x90 | n);
    else if (n < 65536) { csa__byte(o, 0xdc); csa__tail(o, n, 2); }
    else { csa__byte(o, 0xdd); csa__tail(o, n, 4); }
}

static void csa__put_map(csa__out *o, uint32_t n) {
    if (n < 16) csa__byte(o, 0x80 | n);
    else { csa__byte(o, 0xde); csa__tail(o, n, 2); }
}

static void csa__put_str_n(csa__out *o, const void *text, size_t n) {
    if (n < 32) csa__byte(o, 0xa0 | (unsigned)n);
    else if (n < 256) { csa__byte(o, 0xd9); csa__tail(o, n, 1); }
    else if (n < 65536) { csa__byte(o, 0xda); csa__tail(o, n, 2); }
    else { csa__byte(o, 0xdb); csa__tail(o, n, 4); }
    csa__raw(o, text, n);
}

static void csa__put_str(csa__out *o, const char *text) { csa__put_str_n(o, text, strlen(text)); }

static void csa__put_bin_head(csa__out *o, size_t n) {
    if (n < 256) { csa__byte(o, 0xc4); csa__tail(o, n, 1); }
    else if (n < 65536) { csa__byte(o, 0xc5); csa__tail(o, n, 2); }
    else { csa__byte(o, 0xc6); csa__tail(o, n, 4); }
}

static void csa__put(csa__out *o, const csa_value *v) {
    switch (v->type) {
    case CSA_T_BOOL: csa__byte(o, v->u ? 0xc3 : 0xc2); break;
    case CSA_T_INT: csa__put_int(o, v->u); break;
    case CSA_T_NEGATIVE: csa__put_negative(o, v->u); break;
    case CSA_T_STR: csa__put_str_n(o, v->data, v->size); break;
    case CSA_T_BIN: csa__put_bin_head(o, v->size); csa__raw(o, v->data, v->size); break;
    default: csa__byte(o, 0xc0); break;
    }
}

static csa__out csa__frame(csa *c, int type) {
    csa__out o;
    o.p = c->frame;
    o.end = c->frame + sizeof c->frame;
    o.full = 0;
    csa__raw(&o, "CSA1", 4);
    csa__byte(&o, (unsigned)type);
    csa__tail(&o, 0, 3);
    csa__put_array(&o, (uint32_t)strlen(csa__shape(type)));
    return o;
}

static int csa__transmit(csa *c, const csa__out *o) {
    if (c->error[0]) return -1;
    c->frame_size = (size_t)(o->p - c->frame);
    if (o->full) return csa__fail(c, "frame-size: a frame must have at most %d bytes (CSA_MAX_FRAME)", (int)CSA_MAX_FRAME);
    if (c->socket && zmq_send(c->socket, c->frame, c->frame_size, 0) < 0)
        return csa__fail(c, "hub-gone: %s", zmq_strerror(zmq_errno()));
    return 0;
}

/* -- the plan ------------------------------------------------------------------------------------------------------------ */

static void csa__take_attributes(csa *c, csa__in *in, csa_link *k) {
    const unsigned char *begin = in->p;
    csa_value head;
    if (csa__want(in, CSA_T_MAP, &head) || csa__skip_items(in, &head, 0)) return;
    k->attributes_at = (uint32_t)c->attributes_size;
    k->attributes_size = (uint32_t)(in->p - begin);
    if (k->attributes_size > sizeof c->attributes - c->attributes_size) {
        csa__bad(in, "attributes of links must fit CSA_MAX_ATTRIBUTES");
        return;
    }
    memcpy(c->attributes + c->attributes_size, begin, k->attributes_size);
    c->attributes_size += k->attributes_size;
}

static void csa__take_links(csa *c, csa__in *in) {
    csa_value head;
    uint32_t i;
    if (csa__want(in, CSA_T_ARRAY, &head)) return;
    if (head.size > CSA_MAX_LINKS) { csa__bad(in, "links must be at most CSA_MAX_LINKS"); return; }
    for (i = 0; i < head.size && !in->bad; i++) {
        csa_link *k = &c->links[i];
        if (csa__array(in, 8)) return;
        k->id = csa__uint(in);
        csa__name(in, k->port, sizeof k->port);
        k->out = csa__uint(in) != 0;
        csa__name(in, k->peer, sizeof k->peer);
        k->latency = csa__uint(in);
        k->returns = csa__uint(in);
        k->peer_id = (int64_t)csa__uint(in);
        csa__take_attributes(c, in, k);
        c->nlinks = (int)i + 1;
    }
}

/* Ports and roles are as HELLO said; an initiator's name tells a port that is not there from an address that is not. */
static void csa__take_ports(csa *c, csa__in *in) {
    csa_value head;
    char role[CSA_NAME];
    uint32_t i;
    if (csa__want(in, CSA_T_ARRAY, &head)) return;
    for (i = 0; i < head.size && !in->bad; i++) {
        if (c->ninitiators >= CSA_MAX_LINKS) { csa__bad(in, "initiators must be at most CSA_MAX_LINKS"); return; }
        if (csa__array(in, 2)) return;
        csa__name(in, c->initiators[c->ninitiators], CSA_NAME);
        csa__name(in, role, sizeof role);
        if (!in->bad && !strcmp(role, "mmio_initiator")) c->ninitiators++;
    }
}

static void csa__take_maps(csa *c, csa__in *in) {
    csa_value maps, rows;
    char port[CSA_NAME];
    uint32_t i, k;
    if (csa__want(in, CSA_T_ARRAY, &maps)) return;
    for (i = 0; i < maps.size && !in->bad; i++) {
        if (csa__array(in, 2)) return;
        csa__name(in, port, sizeof port);
        if (csa__want(in, CSA_T_ARRAY, &rows)) return;
        for (k = 0; k < rows.size && !in->bad; k++) {
            csa_value v;
            csa_region *r = &c->regions[c->nregions];
            if (c->nregions >= CSA_MAX_REGIONS) { csa__bad(in, "regions must be at most CSA_MAX_REGIONS"); return; }
            if (csa__array(in, 5)) return;
            memcpy(r->port, port, sizeof port);
            /* addresses may need all 64 bits */
            if (csa__next(in, &v)) return;
            if (v.type != CSA_T_INT) { csa__bad(in, "a base must be a number"); return; }
            r->base = v.u;
            r->size = csa__uint(in);
            r->link = csa__uint(in);
            if (csa__next(in, &v)) return;
            if (v.type != CSA_T_INT) { csa__bad(in, "an offset must be a number"); return; }
            r->offset = v.u;
            csa__skip(in);
            c->nregions++;
        }
    }
}

/* How many fields a kind must have that this header itself reads; of others, as many as it has. */
static int csa__fields_of(int code, int otherwise) {
    switch (code) {
    case CSA_READ: case CSA_WRITE_POSTED: return 4;
    case CSA_WRITE: return 5;
    case CSA_COMPLETION: return 3;
    case CSA_LEVEL: return 2;
    case CSA_EPOCH: return 1;
    default: return otherwise;
    }
}

static void csa__take_kinds(csa *c, csa__in *in) {
    csa_value head, names;
    uint32_t i;
    if (csa__want(in, CSA_T_ARRAY, &head)) return;
    if (head.size > CSA_MAX_KINDS) { csa__bad(in, "kinds must be at most CSA_MAX_KINDS"); return; }
    for (i = 0; i < head.size && !in->bad; i++) {
        csa_row *r = &c->kinds[i];
        if (csa__array(in, 4)) return;
        r->code = (int)(csa__uint(in) & 0x7fffffff);
        csa__name(in, r->name, sizeof r->name);
        r->priority = (int)(csa__uint(in) & 0x7fffffff);
        if (csa__want(in, CSA_T_ARRAY, &names) || csa__skip_items(in, &names, 0)) return;
        r->fields = (int)names.size;
        if (r->fields != csa__fields_of(r->code, r->fields)) { csa__bad(in, "bus, wire and power kinds must have their fields"); return; }
        c->nkinds = (int)i + 1;
    }
}

int csa_take_plan(csa *c, const void *data, size_t size) {
    csa__in in;
    csa_value head;
    const unsigned char *begin;
    char kind[CSA_NAME];
    in.p = (const unsigned char *)data;
    in.end = in.p + size;
    in.bad = NULL;
    c->nlinks = c->nregions = c->nkinds = c->ninitiators = 0;
    c->attributes_size = 0;
    csa__array(&in, 12);
    if (csa__uint(&in) != 1) csa__bad(&in, "plan must have layout 1");
    c->node = (int64_t)csa__uint(&in);
    csa__name(&in, c->name, sizeof c->name);
    csa__name(&in, kind, sizeof kind);
    c->seed = csa__uint(&in);
    c->reaction = csa__uint(&in);
    c->wall_limit_ms = csa__uint(&in);
    csa__take_links(c, &in);
    csa__take_ports(c, &in);
    csa__take_maps(c, &in);
    csa__take_kinds(c, &in);
    begin = in.p;
    if (!csa__want(&in, CSA_T_MAP, &head)) csa__skip_items(&in, &head, 0);
    if (!in.bad && in.p != in.end) csa__bad(&in, "nothing must follow the plan");
    if (!in.bad && (size_t)(in.end - begin) > sizeof c->params) csa__bad(&in, "parameters must fit CSA_MAX_PARAMS");
    if (in.bad) return csa__fail(c, "plan: %s", in.bad);
    c->params_size = (size_t)(in.end - begin);
    memcpy(c->params, begin, c->params_size);
    return 0;
}

/* The integer of a name in a map of `size` bytes. */
static uint64_t csa__lookup(const unsigned char *map, size_t size, const char *name, uint64_t otherwise) {
    csa__in in;
    csa_value head, key, value;
    uint32_t i;
    in.p = map;
    in.end = map + size;
    in.bad = NULL;
    if (csa__want(&in, CSA_T_MAP, &head)) return otherwise;
    for (i = 0; i < head.size; i++) {
        if (csa__next(&in, &key) || csa__next(&in, &value) || csa__skip_items(&in, &value, 0)) break;
        if (key.size == strlen(name) && !memcmp(key.data, name, key.size))
            return value.type == CSA_T_INT || value.type == CSA_T_BOOL || value.type == CSA_T_NEGATIVE ? value.u : otherwise;
    }
    return otherwise;
}

uint64_t csa_param(const csa *c, const char *name, uint64_t otherwise) {
    return csa__lookup(c->params, c->params_size, name, otherwise);
}

uint64_t csa_link_attribute(const csa *c, int link, const char *name, uint64_t otherwise) {
    if (link < 0 || link >= c->nlinks) return otherwise;
    return csa__lookup(c->attributes + c->links[link].attributes_at, c->links[link].attributes_size, name, otherwise);
}

int csa_kind(const csa *c, const char *name) {
    int i;
    for (i = 0; i < c->nkinds; i++)
        if (!strcmp(c->kinds[i].name, name)) return c->kinds[i].code;
    return -1;
}

static const csa_row *csa__row(const csa *c, uint64_t code) {
    int i;
    for (i = 0; i < c->nkinds; i++)
        if ((uint64_t)c->kinds[i].code == code) return &c->kinds[i];
    return NULL;
}

/* -- inputs -------------------------------------------------------------------------------------------------------------- */

static int csa__before(const csa *c, const csa_msg *a, const csa_msg *b) {
    if (a->arrival != b->arrival) return a->arrival < b->arrival;
    if (a->priority != b->priority) return a->priority < b->priority;
    if (c->links[a->link].peer_id != c->links[b->link].peer_id) return c->links[a->link].peer_id < c->links[b->link].peer_id;
    return a->seq < b->seq;
}

static void csa__keep(csa *c, int slot) {
    int low = 0, high = c->nkept;
    while (low < high) {
        int mid = (low + high) / 2;
        if (csa__before(c, &c->pool[slot], &c->pool[c->kept[mid]])) high = mid;
        else low = mid + 1;
    }
    memmove(c->kept + low + 1, c->kept + low, (size_t)(c->nkept - low) * sizeof c->kept[0]);
    c->kept[low] = slot;
    c->nkept++;
}

/* The fields of a message; texts and bytes are copied into its store. */
static void csa__take_fields(csa__in *in, csa_msg *m) {
    csa_value head;
    uint32_t i, used = 0;
    if (csa__want(in, CSA_T_ARRAY, &head)) return;
    if (head.size > CSA_MAX_FIELDS) { csa__bad(in, "a message must have at most CSA_MAX_FIELDS fields"); return; }
    m->fields = (int)head.size;
    for (i = 0; i < head.size; i++) {
        csa_value *v = &m->field[i];
        if (csa__next(in, v)) return;
        if (v->type == CSA_T_ARRAY || v->type == CSA_T_MAP || v->type == CSA_T_FLOAT) {
            csa__bad(in, "fields must be numbers, texts, bytes, bool or nil here");
            return;
        }
        if (v->data) {
            if (v->size > CSA_MAX_DATA - used) { csa__bad(in, "fields must fit CSA_MAX_DATA"); return; }
            memcpy(m->store + used, v->data, v->size);
            v->data = m->store + used;
            used += v->size;
        }
    }
}

static int csa__bus(csa__in *in, csa_msg *m) {
    const csa_value *f = m->field, *data = NULL;
    int i, first = m->kind != CSA_WRITE_POSTED;
    m->tag = m->addr = m->data = 0;
    m->size = m->attr = m->status = 0;
    m->bytes = NULL;
    if (m->kind < CSA_READ || m->kind > CSA_COMPLETION) return 0;
    for (i = 0; i < m->fields; i++)
        if (f[i].type != CSA_T_INT && f[i].type != CSA_T_BIN) return csa__bad(in, "fields of a bus message must be numbers or bytes");
    if (first) m->tag = f[0].u;
    if (m->kind == CSA_COMPLETION) {
        m->status = (uint32_t)f[1].u;
        data = &f[2];
    } else {
        m->addr = f[first].u;
        m->size = (uint32_t)f[first + 1].u;
        if (f[first + 1].u < 1 || f[first + 1].u > 4096) return csa__bad(in, "size of an access must be 1 to 4096");
        if (m->kind != CSA_READ) data = &f[first + 2];
        m->attr = (uint32_t)f[m->fields - 1].u;
    }
    if (data) {
        m->data = data->u;
        if (data->type == CSA_T_BIN) {
            m->bytes = data->data;
            if (m->kind == CSA_COMPLETION) m->size = data->size;
            else if (data->size != m->size) return csa__bad(in, "data of a write must have its size");
        } else if (m->kind != CSA_COMPLETION && m->size != 1 && m->size != 2 && m->size != 4 && m->size != 8)
            return csa__bad(in, "data of a write of that size must be bytes");
    }
    return 0;
}

static int csa__take_record(csa *c, csa__in *in) {
    const csa_row *row;
    csa_msg *m;
    uint64_t link, kind;
    int slot;
    if (csa__array(in, 5)) return -1;
    if (!c->nspare) return csa__bad(in, "inputs held at one time must be at most CSA_MAX_KEPT");
    slot = c->spare[c->nspare - 1];
    m = &c->pool[slot];
    m->arrival = csa__uint(in);
    m->seq = csa__uint(in);
    link = csa__uint(in);
    kind = csa__uint(in);
    csa__take_fields(in, m);
    if (in->bad) return -1;
    for (m->link = 0; m->link < c->nlinks && c->links[m->link].id != link; m->link++) {}
    if (m->link == c->nlinks || c->links[m->link].out) return csa__bad(in, "an input must come over a link to this node");
    row = csa__row(c, kind);
    if (!row || row->fields != m->fields) return csa__bad(in, "an input must be of a known kind, with its fields");
    m->kind = row->code;
    m->priority = row->priority;
    if (csa__bus(in, m)) return -1;
    if (m->kind == CSA_EPOCH && m->field[0].type != CSA_T_INT) return csa__bad(in, "an epoch must have a number");
    if (m->arrival < c->begun) return csa__bad(in, "message-in-the-past: an input must not lie before the clock");
    if (m->arrival >= c->off_at) return 0;
    c->nspare--;
    csa__keep(c, slot);
    return 0;
}

static int csa__take_blob(csa *c, csa__in *in) {
    csa_value head;
    uint32_t i;
    if (csa__want(in, CSA_T_ARRAY, &head)) return -1;
    if (head.size > CSA_MAX_MESSAGES) return csa__bad(in, "a blob must have at most 65536 messages");
    for (i = 0; i < head.size; i++)
        if (csa__take_record(c, in)) return -1;
    return in->p == in->end ? 0 : csa__bad(in, "nothing must follow the messages");
}

static int csa__blob_fields(csa__in *in, int depth) {
    csa_value v;
    uint32_t i;
    if (csa__next(in, &v)) return -1;
    if (v.type == CSA_T_MAP || v.type == CSA_T_FLOAT || (!depth && v.type != CSA_T_ARRAY))
        return csa__bad(in, "fields of a message must be numbers, texts, bytes, bool, nil or arrays");
    if (v.type != CSA_T_ARRAY) return 0;
    if (depth >= 12) return csa__bad(in, "fields of a message must nest at most 12 deep");
    for (i = 0; i < v.size; i++)
        if (csa__blob_fields(in, depth + 1)) return -1;
    return 0;
}

int csa_check_blob(const void *data, size_t size, char *error) {
    csa__in in;
    csa_value head;
    uint32_t i;
    in.p = (const unsigned char *)data;
    in.end = in.p + size;
    in.bad = NULL;
    if (!csa__want(&in, CSA_T_ARRAY, &head) && head.size > CSA_MAX_MESSAGES) csa__bad(&in, "a blob must have at most 65536 messages");
    for (i = 0; !in.bad && i < head.size; i++)
        if (!csa__array(&in, 5) && !csa__fields(&in, "iiii")) csa__blob_fields(&in, 0);
    if (!in.bad && in.p != in.end) csa__bad(&in, "nothing must follow the messages");
    return in.bad ? csa__say(error, in.bad) : 0;
}

uint64_t csa_peek(const csa *c) { return c->nkept ? c->pool[c->kept[0]].arrival : CSA_NEVER; }

static void csa__note_epoch(csa *c, uint64_t number) {
    int i;
    if (c->nepochs == CSA_MAX_EPOCHS) return; /* later tests have no counters of their own */
    c->epochs[c->nepochs].number = number;
    c->epochs[c->nepochs].n = c->ncounters;
    for (i = 0; i < c->ncounters; i++) c->epochs[c->nepochs].value[i] = c->counters[i].value;
    c->nepochs++;
}

const csa_msg *csa_take(csa *c) {
    while (!c->error[0] && c->nkept && c->pool[c->kept[0]].arrival < c->stop) {
        int slot = c->kept[0];
        const csa_msg *m = &c->pool[slot];
        memmove(c->kept, c->kept + 1, (size_t)--c->nkept * sizeof c->kept[0]);
        c->taken[c->ntaken++] = slot;
        if (m->arrival > c->now) c->now = m->arrival;
        c->events++;
        if (m->kind == CSA_OFF) {
            c->off = 1;
            c->off_at = m->arrival;
            while (c->nkept) c->spare[c->nspare++] = c->kept[--c->nkept];
            return NULL;
        }
        if (m->kind != CSA_EPOCH) return m;
        csa__note_epoch(c, m->field[0].u);
    }
    return NULL;
}

/* -- life ---------------------------------------------------------------------------------------------------------------- */

static void csa__reset(csa *c) {
    int i;
    memset(c, 0, offsetof(csa, links));
    c->off_at = CSA_NEVER;
    for (i = 0; i < CSA_MAX_KEPT; i++) c->spare[c->nspare++] = CSA_MAX_KEPT - 1 - i;
}

#ifdef ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
#define CSA__REFUSED (ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)
#else
#define CSA__REFUSED 0 /* libzmq before 4.3 */
#endif

/* Whether the connection has ended, as the monitor socket tells; 2: its handshake failed. */
static int csa__gone(csa *c) {
    int gone = 0;
    zmq_msg_t part;
    for (;;) {
        uint16_t event = 0;
        int more = 1, first = 1;
        while (more) {
            zmq_msg_init(&part);
            if (zmq_msg_recv(&part, c->monitor, ZMQ_DONTWAIT) < 0) { zmq_msg_close(&part); return gone; }
            if (first && zmq_msg_size(&part) >= 2) memcpy(&event, zmq_msg_data(&part), 2);
            first = 0;
            more = zmq_msg_more(&part);
            zmq_msg_close(&part);
        }
        if (event & CSA__REFUSED) gone = 2;
        else if (event == ZMQ_EVENT_DISCONNECTED && !gone) gone = 1;
    }
}

/* The next frame into `frame`; timeout_ms < 0: no limit. */
static int csa__receive(csa *c, zmq_msg_t *frame, long timeout_ms) {
    long waited = 0;
    for (;;) {
        zmq_pollitem_t item;
        int n;
        item.socket = c->socket; item.fd = 0; item.events = ZMQ_POLLIN; item.revents = 0;
        n = zmq_poll(&item, 1, 500);
        if (n < 0 && zmq_errno() != EINTR) return csa__fail(c, "hub-gone: %s", zmq_strerror(zmq_errno()));
        if (n > 0 && zmq_msg_recv(frame, c->socket, 0) >= 0) {
            char why[320];
            if (zmq_msg_more(frame)) return csa__fail(c, "bad-frame: a frame must be one part");
            if (csa_check_frame(zmq_msg_data(frame), zmq_msg_size(frame), NULL, why)) return csa__fail(c, "bad-frame: %s", why);
            return 0;
        }
        if (n == 0) {
            int gone = csa__gone(c);
            if (gone == 2) return csa__fail(c, "hub-gone: it refuses the key of this credential, or is not the hub of its run");
            if (gone) return csa__fail(c, "hub-gone: its connection ended");
            waited += 500;
            if (timeout_ms >= 0 && waited >= timeout_ms)
                return csa__fail(c, "no-welcome: no answer within %ld s; is another %s connected?", timeout_ms / 1000, c->name);
        }
    }
}

static const char *csa__caps[CSA_MAX_CAPS];
static int csa__ncaps;

int csa_capability(const char *name) {
    if (csa__ncaps == CSA_MAX_CAPS) return -1;
    csa__caps[csa__ncaps++] = name;
    return 0;
}

static void csa__put_hello(csa__out *o, const char *name, const char *token, const csa_port *ports, int nports,
                           uint64_t lookahead_ps, uint64_t quantum_ps, const char *model) {
    int i;
    csa__put_array(o, 2);
    csa__put_int(o, 1);
    csa__put_int(o, 0);
    csa__put_str(o, name);
    csa__put_str(o, "c");
    csa__put_int(o, 0);
    csa__put_map(o, 6);
    csa__put_str(o, "ports");
    csa__put_map(o, (uint32_t)nports);
    for (i = 0; i < nports; i++) {
        csa__put_str(o, ports[i].name);
        csa__put_str(o, ports[i].role);
    }
    csa__put_str(o, "lookahead_ps");
    csa__put_int(o, lookahead_ps);
    csa__put_str(o, "quantum_ps");
    csa__put_int(o, quantum_ps);
    csa__put_str(o, "caps");
    csa__put_array(o, (uint32_t)csa__ncaps + 1);
    csa__put_str(o, "deliver");
    for (i = 0; i < csa__ncaps; i++) csa__put_str(o, csa__caps[i]);
    csa__put_str(o, "model");
    csa__put_map(o, 1);
    csa__put_str(o, "model");
    csa__put_str(o, model ? model : "");
    csa__put_str(o, "token");
    csa__put_str(o, token);
}

static char csa__keys[3][41]; /* the hub's public key, this node's public and secret key: Z85 text */

int csa_credential(const char *path) {
    static const char *const field[3] = {"\"server_key\"", "\"public_key\"", "\"secret_key\""};
    char text[4097];
    struct stat found;
    size_t n = 0;
    int i, good = 0;
    FILE *file = stat(path, &found) || (found.st_mode & 077) ? NULL : fopen(path, "r");
    if (file) {
        n = fread(text, 1, sizeof text - 1, file);
        fclose(file);
    }
    text[n] = 0;
    for (i = 0; i < 3; i++) {
        const char *at = strstr(text, field[i]);
        at = at ? strchr(at + strlen(field[i]), ':') : NULL;
        at = at ? strchr(at, '"') : NULL;
        if (at && strcspn(at + 1, "\"") == 40) {
            memcpy(csa__keys[i], at + 1, 40);
            good++;
        }
    }
    memset(text, 0, sizeof text);
    return good == 3 ? 0 : -1;
}

/* CURVE, which a tcp endpoint must have: the key says who this is. */
static int csa__curve(csa *c) {
    int status = -1;
    if (csa__keys[2][0])
        status = zmq_setsockopt(c->socket, ZMQ_CURVE_SERVERKEY, csa__keys[0], 41) ||
                 zmq_setsockopt(c->socket, ZMQ_CURVE_PUBLICKEY, csa__keys[1], 41) ||
                 zmq_setsockopt(c->socket, ZMQ_CURVE_SECRETKEY, csa__keys[2], 41);
    memset(csa__keys, 0, sizeof csa__keys);
    if (status) return csa__fail(c, "credential: a tcp endpoint needs this node's key (COSIM_CREDENTIAL, csa_credential) and a libzmq with CURVE");
    return 0;
}

static int csa__connect(csa *c, const char *endpoint, const char *name) {
    static int number;
    char inproc[64];
    int linger = 2000, none = 0;
    static const int keep[5] = {1, 10, 5, 4, 30000}; /* on; s idle, between probes, probes; ms until an answer to what was sent */
    int64_t most = CSA_MAX_RECEIVED + 64; /* with what CURVE adds */
    c->context = zmq_ctx_new();
    c->socket = c->context ? zmq_socket(c->context, ZMQ_DEALER) : NULL;
    c->monitor = c->socket ? zmq_socket(c->context, ZMQ_PAIR) : NULL;
    if (!c->monitor) return csa__fail(c, "connect: %s", zmq_strerror(zmq_errno()));
    snprintf(inproc, sizeof inproc, "inproc://csa-monitor-%d", number++);
    if (strncmp(endpoint, "tcp://", 6)) zmq_setsockopt(c->socket, ZMQ_ROUTING_ID, name, strlen(name));
    else {
        if (csa__curve(c)) return -1;
        zmq_setsockopt(c->socket, ZMQ_TCP_KEEPALIVE, &keep[0], sizeof keep[0]); /* a hub's machine may end without a word */
        zmq_setsockopt(c->socket, ZMQ_TCP_KEEPALIVE_IDLE, &keep[1], sizeof keep[1]);
        zmq_setsockopt(c->socket, ZMQ_TCP_KEEPALIVE_INTVL, &keep[2], sizeof keep[2]);
        zmq_setsockopt(c->socket, ZMQ_TCP_KEEPALIVE_CNT, &keep[3], sizeof keep[3]);
        zmq_setsockopt(c->socket, ZMQ_TCP_MAXRT, &keep[4], sizeof keep[4]);
    }
    zmq_setsockopt(c->socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(c->socket, ZMQ_SNDHWM, &none, sizeof none);
    zmq_setsockopt(c->socket, ZMQ_RCVHWM, &none, sizeof none);
    zmq_setsockopt(c->socket, ZMQ_MAXMSGSIZE, &most, sizeof most);
    zmq_setsockopt(c->monitor, ZMQ_LINGER, &none, sizeof none);
    if (zmq_socket_monitor(c->socket, inproc, ZMQ_EVENT_DISCONNECTED | CSA__REFUSED) || zmq_connect(c->monitor, inproc) ||
        zmq_connect(c->socket, endpoint))
        return csa__fail(c, "connect: %s: %s", endpoint, zmq_strerror(zmq_errno()));
    return 0;
}

int csa_open(csa *c, const char *endpoint, const char *name, const char *token, const csa_port *ports, int nports,
             uint64_t lookahead_ps, uint64_t quantum_ps, const char *model) {
    zmq_msg_t frame;
    csa__out o;
    csa__in in;
    csa_value v, code;
    int type = 0;
    csa__reset(c);
    if (strlen(name) >= sizeof c->name) return csa__fail(c, "name: it must be shorter than %d bytes", (int)sizeof c->name);
    memcpy(c->name, name, strlen(name) + 1);
    if (csa__connect(c, endpoint, name)) return -1;
    o = csa__frame(c, CSA_HELLO);
    csa__put_hello(&o, name, token, ports, nports, lookahead_ps, quantum_ps, model);
    if (csa__transmit(c, &o)) return -1;
    memset(c->frame, 0, sizeof c->frame); /* the token must not stay */
    zmq_msg_init(&frame);
    if (!csa__receive(c, &frame, 60000)) {
        in.p = (const unsigned char *)zmq_msg_data(&frame);
        in.end = in.p + zmq_msg_size(&frame);
        in.bad = NULL;
        type = in.p[4];
        in.p += 8;
        if (type == CSA_WELCOME) {
            csa__array(&in, 3);
            csa__skip(&in);
            if (!csa__want(&in, CSA_T_BIN, &v)) csa_take_plan(c, v.data, v.size);
        } else if (type == CSA_REFUSED) {
            csa__array(&in, 2);
            if (!csa__want(&in, CSA_T_STR, &code) && !csa__want(&in, CSA_T_STR, &v))
                csa__fail(c, "%.*s: %.*s", (int)code.size, (const char *)code.data, (int)v.size, (const char *)v.data);
        } else
            csa__fail(c, "order: WELCOME or REFUSED must come first, not type %d", type);
    }
    zmq_msg_close(&frame);
    return c->error[0] ? -1 : 0;
}

int csa_open_env(csa *c, const csa_port *ports, int nports, uint64_t lookahead_ps, uint64_t quantum_ps, const char *model) {
    const char *endpoint = getenv("COSIM_ENDPOINT"), *name = getenv("COSIM_NAME"), *path = getenv("COSIM_TOKEN_FILE");
    const char *credential = getenv("COSIM_CREDENTIAL");
    char token[128];
    size_t n;
    FILE *file;
    if (!endpoint || !name || !path) {
        csa__reset(c);
        return csa__fail(c, "environment: COSIM_ENDPOINT, COSIM_NAME and COSIM_TOKEN_FILE must be set: start this program from cosim, "
                            "or source attach/NODE.env");
    }
    file = fopen(path, "r");
    n = file ? fread(token, 1, sizeof token - 1, file) : 0;
    if (file) fclose(file);
    while (n && (token[n - 1] == '\n' || token[n - 1] == '\r')) n--;
    token[n] = 0;
    if (!n) {
        csa__reset(c);
        return csa__fail(c, "environment: %s can't be read", path);
    }
    if (credential && !strncmp(endpoint, "tcp://", 6) && csa_credential(credential)) {
        csa__reset(c);
        return csa__fail(c, "credential: %s must be a credential that its owner alone can read (mode 0600)", credential);
    }
    return csa_open(c, endpoint, name, token, ports, nports, lookahead_ps, quantum_ps, model);
}

int csa_ready(csa *c, uint64_t next_event, uint64_t next_out) {
    csa__out o = csa__frame(c, CSA_READY);
    csa__put_int(&o, next_event);
    csa__put_int(&o, next_out < next_event ? next_event : next_out);
    return csa__transmit(c, &o);
}

static int csa__take_grant(csa *c, csa__in *in) {
    csa_value head, blob;
    csa__in inner;
    uint64_t seq, bound;
    uint32_t i;
    seq = csa__uint(in); /* 0: it only delivers */
    if (seq && seq != ++c->grant) csa__bad(in, "sequence: a GRANT must have the next number");
    bound = csa__uint(in);
    if (seq && bound < c->begun) csa__bad(in, "sequence: a GRANT must not go back");
    while (c->ntaken) c->spare[c->nspare++] = c->taken[--c->ntaken];
    if (csa__want(in, CSA_T_ARRAY, &head)) return -1;
    for (i = 0; i < head.size; i++) {
        if (csa__array(in, 2)) return -1;
        csa__uint(in);
        if (csa__want(in, CSA_T_BIN, &blob)) return -1;
        inner.p = blob.data;
        inner.end = blob.data + blob.size;
        inner.bad = NULL;
        if (csa__take_blob(c, &inner)) return csa__bad(in, inner.bad);
    }
    if (seq) {
        c->stop = bound;
        c->granted = 1;
    }
    return 0;
}

static void csa__put_counters(csa__out *o, const csa *c, int n, const uint64_t *values) {
    int i;
    csa__put_map(o, (uint32_t)n);
    for (i = 0; i < n; i++) {
        csa__put_str(o, c->counters[i].name);
        csa__put_int(o, values ? values[i] : c->counters[i].value);
    }
}

static int csa__bye(csa *c, csa__in *in) {
    csa_value reason;
    csa__out report, o;
    int i;
    if (csa__want(in, CSA_T_STR, &reason)) return -1;
    report.p = c->records;
    report.end = c->records + sizeof c->records;
    report.full = 0;
    csa__put_array(&report, 2);
    csa__put_counters(&report, c, c->ncounters, NULL);
    csa__put_array(&report, (uint32_t)c->nepochs);
    for (i = 0; i < c->nepochs; i++) {
        csa__put_array(&report, 2);
        csa__put_int(&report, c->epochs[i].number);
        csa__put_counters(&report, c, c->epochs[i].n, c->epochs[i].value);
    }
    o = csa__frame(c, CSA_BYE);
    csa__put_str_n(&o, reason.data, reason.size);
    csa__put_bin_head(&o, (size_t)(report.p - c->records));
    csa__raw(&o, c->records, (size_t)(report.p - c->records));
    o.full |= report.full;
    c->over = 1;
    return csa__transmit(c, &o);
}

int csa_take_frame(csa *c, const void *data, size_t size) {
    csa__in in;
    char why[320];
    int type, status = 0;
    if (c->error[0]) return -1;
    if (csa_check_frame(data, size, &type, why)) return csa__fail(c, "bad-frame: %s", why);
    in.p = (const unsigned char *)data + 8;
    in.end = (const unsigned char *)data + size;
    in.bad = NULL;
    csa__array(&in, (uint32_t)strlen(csa__shape(type)));
    if (type == CSA_GRANT) {
        if (c->granted) return csa__fail(c, "order: a GRANT must not come before the answer to the last");
        status = csa__take_grant(c, &in) ? -1 : c->granted ? 1 : 2;
    } else if (type == CSA_BYE)
        status = csa__bye(c, &in);
    else
        return csa__fail(c, "order: GRANT or BYE must come, not type %d", type);
    if (in.bad) return csa__fail(c, "bad-frame: %s", in.bad);
    return c->error[0] ? -1 : status;
}

int csa_wait(csa *c) {
    zmq_msg_t frame;
    int status;
    if (c->error[0]) return -1;
    if (c->over) return 0;
    if (c->granted) return csa__fail(c, "order: csa_done must answer the grant before csa_wait waits for the next one");
    do {
        status = -1;
        zmq_msg_init(&frame);
        if (!csa__receive(c, &frame, -1)) status = csa_take_frame(c, zmq_msg_data(&frame), zmq_msg_size(&frame));
        zmq_msg_close(&frame);
    } while (status == 2);
    return status;
}

/* -- outputs ------------------------------------------------------------------------------------------------------------- */

static const csa_link *csa__find(csa *c, const char *port, const char *peer) {
    const csa_link *found = NULL;
    int i, n = 0;
    for (i = 0; i < c->nlinks; i++) {
        const csa_link *k = &c->links[i];
        size_t length = peer ? strlen(peer) : 0;
        if (!k->out || strcmp(k->port, port)) continue;
        if (peer && strcmp(k->peer, peer) && (strncmp(k->peer, peer, length) || k->peer[length] != '.')) continue;
        found = k;
        n++;
    }
    if (n == 1) return found;
    csa__fail(c, "bad-link: port %s must lead to one peer%s%s, not to %d; see the topology's links", port, peer ? " " : "",
              peer ? peer : "", n);
    return NULL;
}

static int csa__emit(csa *c, const csa_link *k, int kind, const csa_value *f, int n, uint64_t at) {
    const csa_row *row = csa__row(c, (uint64_t)kind);
    csa__out o;
    uint64_t arrival = at + k->latency;
    int i;
    if (c->error[0]) return -1;
    if (!row || row->fields != n) return csa__fail(c, "kind: port %s must send a known kind with its fields, not %d with %d", k->port, kind, n);
    if (at < c->begun || at >= CSA_NEVER || arrival >= CSA_NEVER)
        return csa__fail(c, "message-in-the-past: a send must lie at or after the grant's begin %llu ps, not at %llu ps",
                         (unsigned long long)c->begun, (unsigned long long)at);
    if (at >= c->off_at) return 0;
    if (c->records_count >= CSA_MAX_MESSAGES) return csa__fail(c, "frame-size: a grant's answer must have at most 65536 messages");
    o.p = c->records + c->records_size;
    o.end = c->records + sizeof c->records;
    o.full = 0;
    csa__put_array(&o, 5);
    csa__put_int(&o, arrival);
    csa__put_int(&o, c->seq);
    csa__put_int(&o, k->id);
    csa__put_int(&o, (uint64_t)kind);
    csa__put_array(&o, (uint32_t)n);
    for (i = 0; i < n; i++) csa__put(&o, &f[i]);
    if (o.full) return csa__fail(c, "frame-size: what a grant's answer sends must fit half of CSA_MAX_FRAME");
    c->records_size = (size_t)(o.p - c->records);
    c->records_count++;
    c->seq++;
    if (k->returns < CSA_NEVER && arrival + k->returns < c->stop) c->stop = arrival + k->returns;
    return 0;
}

int csa_send(csa *c, const char *port, const char *peer, int kind, const csa_value *fields, int n, uint64_t at) {
    const csa_link *k = c->error[0] ? NULL : csa__find(c, port, peer);
    return k ? csa__emit(c, k, kind, fields, n, at) : -1;
}

static int csa__complete(csa *c, const csa_msg *request, int status, csa_value data, uint64_t at) {
    csa_value f[3];
    const csa_link *in = &c->links[request->link];
    int i;
    if (request->kind == CSA_WRITE_POSTED) return 0;
    f[0] = csa_int(request->tag);
    f[1] = csa_int((uint64_t)status);
    f[2] = request->kind == CSA_READ && status <= CSA_EXOKAY ? data : csa_int(0);
    for (i = 0; i < c->nlinks; i++)
        if (c->links[i].out && !strcmp(c->links[i].port, in->port) && !strcmp(c->links[i].peer, in->peer))
            return csa__emit(c, &c->links[i], CSA_COMPLETION, f, 3, at);
    return csa__fail(c, "bad-link: port %s has no way back to %s", in->port, in->peer);
}

int csa_reply(csa *c, const csa_msg *request, int status, uint64_t data, uint64_t at) {
    if (request->size < 8 && request->size) data &= ((uint64_t)1 << 8 * request->size) - 1;
    return csa__complete(c, request, status, csa_int(data), at);
}

int csa_reply_bytes(csa *c, const csa_msg *request, const void *data, uint64_t at) {
    return csa__complete(c, request, CSA_OKAY, csa_bin(data, request->size), at);
}

static int csa__request(csa *c, const char *port, int kind, uint64_t address, uint32_t size, uint64_t value, const void *bytes,
                        int attr, uint64_t at, uint64_t *tag) {
    csa_value f[5];
    int i, k, n = 0;
    int whole = size == 1 || size == 2 || size == 4 || size == 8;
    if (c->error[0]) return -1;
    for (i = 0; i < c->ninitiators && strcmp(c->initiators[i], port); i++) {}
    if (i == c->ninitiators) return csa__fail(c, "bad-link: port %s must be an mmio_initiator of this node", port);
    if (size < 1 || size > 4096) return csa__fail(c, "fields: size of an access must be 1 to 4096, not %u", (unsigned)size);
    for (i = 0; i < c->nregions; i++) {
        const csa_region *r = &c->regions[i];
        if (strcmp(r->port, port) || address < r->base || address - r->base > r->size || size > r->size - (address - r->base)) continue;
        for (k = 0; k < c->nlinks && !(c->links[k].out && c->links[k].id == r->link); k++) {}
        if (k == c->nlinks) return csa__fail(c, "bad-link: region at %#llx has no link", (unsigned long long)r->base);
        if (kind != CSA_WRITE_POSTED) f[n++] = csa_int(c->tag);
        f[n++] = csa_int(address - r->base + r->offset);
        f[n++] = csa_int(size);
        if (kind != CSA_READ) {
            if (whole && size < 8) value &= ((uint64_t)1 << 8 * size) - 1;
            f[n++] = whole ? csa_int(value) : csa_bin(bytes, size);
        }
        f[n++] = csa_int((uint32_t)attr); /* bit 31 belongs to a PASID */
        if (tag) *tag = c->tag;
        if (kind != CSA_WRITE_POSTED) c->tag++;
        return csa__emit(c, &c->links[k], kind, f, n, at);
    }
    return 1;
}

int csa_read(csa *c, const char *port, uint64_t address, uint32_t size, int attr, uint64_t at, uint64_t *tag) {
    return csa__request(c, port, CSA_READ, address, size, 0, NULL, attr, at, tag);
}

int csa_write(csa *c, const char *port, uint64_t address, uint32_t size, uint64_t value, const void *bytes, int attr, uint64_t at,
              uint64_t *tag) {
    return csa__request(c, port, CSA_WRITE, address, size, value, bytes, attr, at, tag);
}

int csa_post(csa *c, const char *port, uint64_t address, uint32_t size, uint64_t value, const void *bytes, int attr, uint64_t at) {
    return csa__request(c, port, CSA_WRITE_POSTED, address, size, value, bytes, attr, at, NULL);
}

int csa_level(csa *c, const char *port, const char *peer, uint64_t line, int level, uint64_t at) {
    csa_value f[2];
    f[0] = csa_int(line);
    f[1] = csa_int(level != 0);
    return csa_send(c, port, peer, CSA_LEVEL, f, 2, at);
}

static uint64_t csa__min(uint64_t a, uint64_t b) { return a < b ? a : b; }

int csa_done(csa *c, uint64_t next_event, uint64_t next_out, uint64_t now) {
    csa__out o;
    uint64_t held = csa_peek(c), event = csa__min(next_event, held), out;
    unsigned char head[8];
    csa__out h;
    if (c->error[0]) return -1;
    if (!c->granted) return csa__fail(c, "order: csa_done must answer a grant");
    now = csa__min(now, c->stop);
    if (held < now)
        return csa__fail(c, "kept-input: the input for %llu ps must be taken before the clock goes on to %llu ps",
                         (unsigned long long)held, (unsigned long long)now);
    out = csa__min(next_out < next_event ? next_event : next_out, held > CSA_NEVER - c->reaction ? CSA_NEVER : held + c->reaction);
    if (c->off) event = out = CSA_NEVER;
    if (event < now) event = now;
    if (out < event) out = event;
    o = csa__frame(c, CSA_DONE);
    csa__put_int(&o, c->grant);
    csa__put_int(&o, now);
    csa__put_int(&o, event);
    csa__put_int(&o, out);
    csa__put_int(&o, c->events);
    if (c->records_count) {
        h.p = head; h.end = head + sizeof head; h.full = 0;
        csa__put_array(&h, c->records_count);
        csa__put_array(&o, 1);
        csa__put_array(&o, 4);
        csa__tail(&o, 0, 3); /* worker, arrival, wake: the hub routes what a foreign node sends */
        csa__put_bin_head(&o, (size_t)(h.p - head) + c->records_size);
        csa__raw(&o, head, (size_t)(h.p - head));
        csa__raw(&o, c->records, c->records_size);
    } else
        csa__put_array(&o, 0);
    if (c->side_count) {
        h.p = head; h.end = head + sizeof head; h.full = 0;
        csa__put_array(&h, c->side_count);
        csa__put_bin_head(&o, (size_t)(h.p - head) + c->side_size);
        csa__raw(&o, head, (size_t)(h.p - head));
        csa__raw(&o, c->side, c->side_size);
    } else
        csa__byte(&o, 0xc0);
    c->begun = now;
    if (c->now < now) c->now = now;
    c->records_size = c->side_size = 0;
    c->records_count = c->side_count = 0;
    c->events = 0;
    c->granted = 0;
    return csa__transmit(c, &o);
}

/* -- the rest ------------------------------------------------------------------------------------------------------------ */

uint64_t *csa_count(csa *c, const char *name) {
    int i;
    for (i = 0; i < c->ncounters; i++)
        if (!strcmp(c->counters[i].name, name)) return &c->counters[i].value;
    if (c->ncounters == CSA_MAX_COUNTERS) {
        csa__fail(c, "counters: there must be at most %d (CSA_MAX_COUNTERS)", CSA_MAX_COUNTERS);
        return NULL;
    }
    c->counters[c->ncounters].name = name;
    c->counters[c->ncounters].value = 0;
    return &c->counters[c->ncounters++].value;
}

int csa_log(csa *c, const char *event, const char *text) {
    csa__out o;
    if (c->error[0]) return -1;
    o.p = c->side + c->side_size;
    o.end = c->side + sizeof c->side;
    o.full = 0;
    csa__put_array(&o, 5);
    csa__put_int(&o, c->now);
    csa__put_int(&o, (uint64_t)c->node);
    csa__put_int(&o, c->side_number);
    csa__put_int(&o, 0);
    csa__put_array(&o, 2);
    csa__put_str(&o, event);
    csa__put_map(&o, 1);
    csa__put_str(&o, "text");
    csa__put_str(&o, text);
    if (o.full) return csa__fail(c, "frame-size: the log of one grant must fit CSA_MAX_SIDE");
    c->side_size = (size_t)(o.p - c->side);
    c->side_count++;
    c->side_number++;
    return 0;
}

int csa_fail(csa *c, const char *what) {
    csa__out o = csa__frame(c, CSA_ERROR);
    csa__put_str(&o, "node-failed");
    csa__put_str(&o, c->name);
    csa__put_int(&o, c->now);
    csa__put_str(&o, what);
    csa__put_str(&o, "");
    csa__transmit(c, &o);
    return csa__fail(c, "node-failed: %s", what);
}

int csa_close(csa *c) {
    if (c->socket) zmq_socket_monitor(c->socket, NULL, 0);
    if (c->monitor) zmq_close(c->monitor);
    if (c->socket) zmq_close(c->socket);
    if (c->context) zmq_ctx_term(c->context);
    c->monitor = c->socket = c->context = NULL;
    return c->error[0] != 0;
}

#ifdef __cplusplus
}
#endif
#endif /* CSA_IMPLEMENTED */
#endif /* CSA_IMPLEMENTATION */
