// The SMMUv3 test engine as RTL: frames of two functions, an engine (MEMCPY, RAND48, SUM64) with a DMA channel, MSI-X
// (TF-A-Tests, SMMUv3TestEngine.h; PCI Express Base Specification 6.1.4 and 7.7.2). Configuration space and BAR decode are the
// adapter's.
//
// One access of 32 bits at a time on the register channel; `rsp_*` answers in the next cycle. One engine serves the frames of
// both functions in the order of their commands.

`timescale 1ps/1ps

module smmute (
    input  wire         clk,

    // What configuration space says, a bit per function.
    input  wire [1:0]   cfg_master,
    input  wire [1:0]   cfg_msix_enable,
    input  wire [1:0]   cfg_msix_mask,
    input  wire [1:0]   cfg_pasid,
    input  wire [31:0]  cfg_latency,     // cycles from a command to its first access
    input  wire [15:0]  cfg_rate,        // bytes per cycle

    // Registers: space 0 is BAR 0 (frames), 1 is BAR 2 (MSI-X table), 2 is BAR 4 (pending bits).
    input  wire         reg_valid,
    input  wire         reg_write,
    input  wire         reg_secure,
    input  wire         reg_fn,
    input  wire [1:0]   reg_space,
    input  wire [17:0]  reg_addr,
    input  wire [31:0]  reg_wdata,
    output reg          rsp_valid,
    output reg  [31:0]  rsp_rdata,
    output reg          rsp_ignored,

    // DMA: up to 64 bytes, byte 0 is wdata[7:0]; completions in any order.
    output reg          dma_valid,
    input  wire         dma_ready,
    output reg          dma_write,
    output reg          dma_fn,
    output reg  [63:0]  dma_addr,
    output reg  [6:0]   dma_size,
    output reg  [511:0] dma_wdata,
    output reg  [2:0]   dma_attr,        // AxPROT
    output reg          dma_pasid_valid,
    output reg  [19:0]  dma_pasid,
    output reg  [4:0]   dma_tag,         // 0 to 15: slots, 16: MSI
    input  wire         cpl_valid,
    input  wire [4:0]   cpl_tag,
    input  wire         cpl_error,
    input  wire [511:0] cpl_data,

    // Events for the adapter's counters, one cycle each.
    output reg          ev_started,
    output reg          ev_misconfigured,
    output reg          ev_error,
    output reg          ev_msi,
    output reg          ev_msi_aborted,

    // For the adapter's clock: something to sample; something to do without any input; for how many cycles nothing to sample.
    output wire         attention,
    output wire         busy,
    output wire [31:0]  ahead
);
    localparam [31:0] HALTED = 1, MEMCPY = 2, RAND48 = 3, SUM64 = 4, MISCONFIGURED = 32'hFFFFFFFE, ERROR = 32'hFFFFFFFF;
    localparam [4:0] CMD = 0, UCTRL = 1, LAUNCHED = 2, RETURNED = 3, MSIADDRESS = 4, MSIDATA = 6, ATTRIBUTES = 8, SEED = 9,
        BEGIN = 10, END = 12, STRIDE = 14, UDATA0 = 16, UDATA1 = 18, UDATA2 = 20, DOWNSTREAM = 1, SUBSTREAM = 3;
    localparam [3:0] IDLE = 0, START = 1, SPAN = 2, READ = 3, READ_WAIT = 4, WRITE = 5, WRITE_WAIT = 6, FINISH = 7, FIRE = 8,
        MSI_WAIT = 9, SWEEP = 10;
    localparam [4:0] MSI_TAG = 16;

    // -- storage -------------------------------------------------------------------------------------------------------

    reg [31:0] frames [0:131071];        // {function, pair, privileged, frame[8:0], word[4:0]}
    reg [31:0] table_ [0:16383];         // {function, vector[10:0], word[1:0]}
    reg [4095:0] pending;                // {function, vector}
    reg [10:0] queue [0:2047];           // {function, pair, frame}: commands in order
    reg [11:0] head, tail;

    integer i;
    initial begin
        for (i = 0; i < 131072; i = i + 1) frames[i] = (i % 32 == 0) ? 1 : 0;   // cmd is HALTED, pctrl is Non-secure
        for (i = 0; i < 16384; i = i + 1) table_[i] = (i % 4 == 3) ? 1 : 0;     // masked
        pending = 0;
        head = 0; tail = 0; state = IDLE; sweep = 0; was = 0;
        rsp_valid = 0; rsp_rdata = 0; rsp_ignored = 0; dma_valid = 0; dma_write = 0; dma_fn = 0; dma_addr = 0; dma_size = 0;
        dma_wdata = 0; dma_attr = 0; dma_pasid_valid = 0; dma_pasid = 0; dma_tag = 0;
        ev_started = 0; ev_misconfigured = 0; ev_error = 0; ev_msi = 0; ev_msi_aborted = 0;
        outstanding = 0; count = 0;
    end

    // -- the job at work -----------------------------------------------------------------------------------------------

    reg [3:0]   state;
    reg [10:0]  job;                     // {function, pair, frame}
    reg [63:0]  first, last, stride, destination, low, high, from, to, left;
    reg [31:0]  doing, attributes, substream, order;
    reg [47:0]  random;                  // of the order
    reg [47:0]  fill;                    // of RAND48's bytes; the next one is for address fill_at
    reg [63:0]  fill_at, fill_start, sum;
    reg [63:0]  count;
    reg [4:0]   used, next, outstanding;
    reg [511:0] data [0:15];
    reg [63:0]  source_of [0:15], target_of [0:15];
    reg [6:0]   size_of [0:15];
    reg [15:0]  failed;
    reg         filled, bad, more, fresh;        // fresh: no later command was given to this frame
    reg [63:0]  bad_address;
    reg [10:0]  vector;
    reg         fn, sweeping, sweep;
    reg [11:0]  swept;
    reg [5:0]   was;

    function [16:0] at(input [10:0] which, input privileged, input [4:0] word);
        at = {which[10:9], privileged, which[8:0], word};
    endfunction

    function illegal(input [3:0] policy);
        illegal = !policy[1] && policy[3:2] != 0;
    endfunction

    function illegal_half(input [15:0] half);
        illegal_half = illegal(half[7:4]) || (half[7:4] >= 2 && illegal(half[3:0]));
    endfunction

    function [2:0] prot(input [15:0] half);
        prot = {half[10], 1'b1, half[8]};
    endfunction

    function [47:0] lcg(input [47:0] x);
        lcg = x * 48'h5DEECE66D + 48'hB;
    endfunction

    function [63:0] pair64(input [10:0] which, input [4:0] word);
        pair64 = {frames[at(which, 0, word + 1)], frames[at(which, 0, word)]};
    endfunction

    function misconfigured(input [10:0] w, input [31:0] command);
        misconfigured = (command != MEMCPY && command != RAND48 && command != SUM64)
            || (command == SUM64 && (frames[at(w, 0, BEGIN)][2:0] != 0 || frames[at(w, 0, END)][2:0] != 7))
            || pair64(w, MSIADDRESS) > 1
            || (pair64(w, MSIADDRESS) == 1 && frames[at(w, 0, MSIDATA)] >= 2048)
            || pair64(w, STRIDE) == 0 || (pair64(w, STRIDE) != 1 && frames[at(w, 0, STRIDE)] % 8 != 0)
            || pair64(w, BEGIN) > pair64(w, END)
            || (pair64(w, BEGIN) < 8 && (pair64(w, END) | 7) == 64'hFFFFFFFFFFFFFFFF)
            || (frames[at(w, 1, SUBSTREAM)] != 32'hFFFFFFFF && frames[at(w, 1, SUBSTREAM)] > 32'h000FFFFF)
            || frames[at(w, 1, DOWNSTREAM)] != 0
            || illegal_half(frames[at(w, 0, ATTRIBUTES)][15:0]) || illegal_half(frames[at(w, 0, ATTRIBUTES)][31:16]);
    endfunction

    wire waiting = (state == READ_WAIT || state == WRITE_WAIT || state == MSI_WAIT) && outstanding != 0 && !dma_valid;
    wire events = ev_started | ev_misconfigured | ev_error | ev_msi | ev_msi_aborted;
    wire rest = state == IDLE && head == tail && !(sweep && pending != 0);
    assign attention = rsp_valid | dma_valid | events;
    assign busy = reg_valid | cpl_valid | attention | !(rest | waiting) | was != {cfg_msix_enable, cfg_msix_mask, cfg_master};
    assign ahead = state != START ? 0 : count[63:32] != 0 ? 32'hFFFFFFFF : count[31:0];

    // -- registers -----------------------------------------------------------------------------------------------------

    reg [16:0] word;
    reg [10:0] which;
    reg [31:0] value;

    task access_frames;
        begin
            word = {reg_fn, reg_addr[17:2]};
            which = {reg_fn, reg_addr[17], reg_addr[15:7]};
            if (!reg_secure && !frames[at(which, 1, 0)][0]) begin
                rsp_rdata <= 0;
                rsp_ignored <= reg_write;
            end else if (!reg_write) begin
                rsp_rdata <= frames[word];
            end else if (frames[at(which, 0, CMD)] > HALTED && frames[at(which, 0, CMD)] < MISCONFIGURED) begin
                rsp_ignored <= 1;
            end else begin
                value = reg_wdata;
                if (reg_addr[16] && reg_addr[6:2] == 0) value = value & 32'h301 | {31'b0, !reg_secure};
                if (!reg_addr[16] && reg_addr[6:2] == UCTRL) value = value & 32'hFFFF0001;
                if (reg_addr[16] || (reg_addr[6:2] != LAUNCHED && reg_addr[6:2] != RETURNED)) frames[word] = value;
                if (!reg_addr[16] && reg_addr[6:2] == CMD) command;
            end
        end
    endtask

    task command;
        begin
            if (which == job) fresh = 0;
            if (value <= HALTED) begin
                frames[word] = HALTED;
            end else if (misconfigured(which, value)) begin
                frames[word] = MISCONFIGURED;
                ev_misconfigured <= 1;
            end else begin
                ev_started <= 1;
                frames[at(which, 0, LAUNCHED)] = 0;
                frames[at(which, 0, RETURNED)] = 0;
                queue[tail[10:0]] = which;
                tail = tail + 1;
            end
        end
    endtask

    task access_table;
        begin
            if (!reg_write) begin
                rsp_rdata <= table_[{reg_fn, reg_addr[14:2]}];
            end else begin
                table_[{reg_fn, reg_addr[14:2]}] = reg_addr[3:2] == 0 ? reg_wdata & 32'hFFFFFFFC
                    : reg_addr[3:2] == 3 ? reg_wdata & 1 : reg_wdata;
                if (reg_addr[3:2] == 3) sweep = 1;
            end
        end
    endtask

    // -- engine --------------------------------------------------------------------------------------------------------

    task request(input write, input [63:0] address, input [6:0] size, input [4:0] tag, input [15:0] half);
        begin
            dma_valid <= 1;
            dma_write <= write;
            dma_fn <= job[10];
            dma_addr <= address;
            dma_size <= size;
            dma_tag <= tag;
            dma_attr <= prot(half);
            dma_pasid_valid <= substream != 32'hFFFFFFFF;
            dma_pasid <= substream == 32'hFFFFFFFF ? 20'b0 : substream[19:0];
            outstanding = outstanding + 1;
        end
    endtask

    task launched;
        frames[at(job, 0, LAUNCHED)] = frames[at(job, 0, LAUNCHED)] + 1;
    endtask

    task begin_job;
        begin
            job = queue[head[10:0]];
            head = head + 1;
            fresh = 1;
            bad = 0;
            stride = pair64(job, STRIDE);
            first = pair64(job, BEGIN);
            last = pair64(job, END);
            destination = pair64(job, UDATA0);
            if (stride != 1) begin
                first = first & ~64'd7;
                last = last | 7;
                destination = destination & ~64'd7;
            end
            attributes = frames[at(job, 0, ATTRIBUTES)];
            order = frames[at(job, 0, SEED)];
            substream = frames[at(job, 1, SUBSTREAM)];
            random = {order, 16'h330E};
            doing = frames[at(job, 0, CMD)];
            filled = 0;
            sum = 0;
            low = 0;
            high = stride == 1 ? (last >> 12) - (first >> 12) : (last - 7 - first) / stride;
            count = {32'b0, cfg_latency} + (stride == 1 ? last - first + 1 : (high + 1) * 8) / {48'b0, cfg_rate};
            used = 0;
            more = 1;
            left = 0;
            state = START;
        end
    endtask

    // The next piece: up to a 4 KiB boundary, or 64 bits of a stride; up, down, or front and back at random.
    reg [63:0] number;
    task next_span;
        begin
            random = lcg(random);
            if (order == 0 || (order != 32'hFFFFFFFF && !random[17])) begin
                number = low;
                low = low + 1;
            end else begin
                number = high;
                high = high - 1;
            end
            if (order != 0 && order != 32'hFFFFFFFF) random = lcg(random);
            if (stride == 1) begin
                from = ((first >> 12) + number) << 12;
                left = from + 4096;
                if (number == 0) from = first;
                if (left == 0 || left - 1 > last) left = last + 1;
                left = left - from;
            end else begin
                from = first + number * stride;
                left = 8;
            end
            to = doing == MEMCPY ? destination + from - first : from;
            more = low <= high && high != 64'hFFFFFFFFFFFFFFFF;
        end
    endtask

    // RAND48's bytes: the generator, two steps a byte, starts anew at the begin of the range and of each 4 KiB.
    reg [63:0] start;
    task fill_chunk;
        begin
            start = {from[63:12], 12'b0};
            if (start < first) start = first;
            if (!filled || start != fill_start || from < fill_at) begin
                filled = 1;
                fill_start = start;
                fill_at = start;
                fill = {order ^ start[63:32] ^ start[31:0], 16'h330E};
            end
            while (fill_at != from) begin
                fill = lcg(lcg(fill));
                fill_at = fill_at + 1;
            end
            data[used[3:0]] = 0;
            for (i = 0; i < {25'b0, room[6:0]}; i = i + 1) begin
                fill = lcg(fill);
                data[used[3:0]][8 * i +: 8] = fill[24:17];
                fill = lcg(fill);
            end
            fill_at = from + room;
            failed[used[3:0]] = 0;
        end
    endtask

    // Chunks do not cross 64 bytes, neither where they come from nor where they go.
    reg [63:0] room;
    task read_chunk;
        begin
            room = 64 - {58'b0, from[5:0] > to[5:0] ? from[5:0] : to[5:0]};
            if (room > left) room = left;
            source_of[used[3:0]] = from;
            target_of[used[3:0]] = to;
            size_of[used[3:0]] = room[6:0];
            if (doing == RAND48) begin
                fill_chunk;
            end else if (cfg_master[job[10]]) begin
                launched;
                request(0, from, room[6:0], used, attributes[15:0]);
                failed[used[3:0]] = 0;
            end else begin
                launched;
                failed[used[3:0]] = 1;
            end
            used = used + 1;
            from = from + room;
            to = to + room;
            left = left - room;
        end
    endtask

    // A completion has zeros above the bytes that were asked for.
    task add;
        for (i = 0; i < 16; i = i + 1)
            if (i < used)
                sum = sum + data[i][63:0] + data[i][127:64] + data[i][191:128] + data[i][255:192]
                    + data[i][319:256] + data[i][383:320] + data[i][447:384] + data[i][511:448];
    endtask

    task judge(input writes);
        begin
            for (i = 15; i >= 0; i = i - 1)
                if (i < used && failed[i]) begin
                    bad = 1;
                    bad_address = writes ? target_of[i] : source_of[i];
                end
        end
    endtask

    task finish;
        begin
            frames[at(job, 0, CMD)] = bad ? ERROR : HALTED;
            if (bad) begin
                {frames[at(job, 0, UDATA2 + 1)], frames[at(job, 0, UDATA2)]} = bad_address;
                ev_error <= 1;
            end else if (doing == SUM64) begin
                {frames[at(job, 0, UDATA1 + 1)], frames[at(job, 0, UDATA1)]} = sum;
            end
            state = IDLE;
            if (frames[at(job, 0, MSIADDRESS)] == 1) begin
                if (cfg_master[job[10]] && cfg_msix_enable[job[10]]) begin
                    fn = job[10];
                    vector = frames[at(job, 0, MSIDATA)][10:0];
                    sweeping = 0;
                    state = FIRE;
                end else begin
                    abort;
                end
            end
        end
    endtask

    task abort;
        begin
            frames[at(job, 0, UCTRL)] = frames[at(job, 0, UCTRL)] | 1;
            ev_msi_aborted <= 1;
        end
    endtask

    task fire;
        begin
            if (cfg_msix_mask[fn] || table_[{fn, vector, 2'd3}][0]) begin
                pending[{fn, vector}] = 1;
                state = sweeping ? SWEEP : IDLE;
            end else begin
                substream = 32'hFFFFFFFF;
                request(1, {table_[{fn, vector, 2'd1}], table_[{fn, vector, 2'd0}]}, 4, MSI_TAG, 0);
                dma_fn <= fn;
                dma_wdata <= {480'b0, table_[{fn, vector, 2'd2}]};
                ev_msi <= 1;
                state = MSI_WAIT;
            end
        end
    endtask

    task work;
        case (state)
            IDLE:
                if (sweep && pending != 0) begin
                    sweep = 0;
                    sweeping = 1;
                    swept = 0;
                    fn = 0;
                    state = SWEEP;
                end else begin
                    sweep = 0;
                    if (head != tail) begin_job;
                end
            START:
                if (count != 0) count = count - 1;
                else if (substream != 32'hFFFFFFFF && !cfg_pasid[job[10]]) begin
                    bad = 1;
                    bad_address = pair64(job, BEGIN);
                    state = FINISH;
                end else state = SPAN;
            SPAN:
                if (left == 0 && more) next_span;
                else state = left == 0 ? READ_WAIT : READ;
            READ: begin
                if (!dma_valid) read_chunk;
                if (used == 16 || (left == 0 && !more)) state = READ_WAIT;
                else if (left == 0) state = SPAN;
            end
            READ_WAIT:
                if (outstanding == 0) begin
                    judge(0);
                    next = 0;
                    if (doing == SUM64 && !bad) begin
                        add;
                        used = 0;
                        state = left == 0 && !more ? FINISH : SPAN;
                    end else state = bad ? FINISH : WRITE;
                end
            WRITE:
                if (!dma_valid) begin
                    launched;
                    failed[next[3:0]] = !cfg_master[job[10]];
                    if (cfg_master[job[10]]) begin
                        request(1, target_of[next[3:0]], size_of[next[3:0]], next, attributes[31:16]);
                        dma_wdata <= data[next[3:0]];
                    end
                    next = next + 1;
                    if (next == used) state = WRITE_WAIT;
                end
            WRITE_WAIT:
                if (outstanding == 0) begin
                    judge(1);
                    used = 0;
                    state = bad || (left == 0 && !more) ? FINISH : SPAN;
                end
            FINISH: finish;
            FIRE: fire;
            MSI_WAIT: if (outstanding == 0) state = sweeping ? SWEEP : IDLE;
            SWEEP:
                if (swept == 12'hFFF && !pending[swept]) state = IDLE;
                else if (pending[swept] && cfg_msix_enable[swept[11]] && cfg_master[swept[11]]
                         && !cfg_msix_mask[swept[11]] && !table_[{swept, 2'd3}][0]) begin
                    pending[swept] = 0;
                    {fn, vector} = swept;
                    state = FIRE;
                end else if (swept == 12'hFFF) state = IDLE;
                else swept = swept + 1;
            default: state = IDLE;
        endcase
    endtask

    task complete;
        begin
            outstanding = outstanding - 1;
            if (cpl_tag == MSI_TAG) begin
                if (cpl_error && !sweeping && fresh) abort;
                else if (cpl_error) ev_msi_aborted <= 1;
            end else begin
                frames[at(job, 0, RETURNED)] = frames[at(job, 0, RETURNED)] + 1;
                failed[cpl_tag[3:0]] = cpl_error;
                if (state == READ || state == READ_WAIT || state == SPAN) data[cpl_tag[3:0]] = cpl_data;
            end
        end
    endtask

    // -- one clock for all ---------------------------------------------------------------------------------------------

    always @(posedge clk) begin
        rsp_valid <= reg_valid;
        rsp_rdata <= 0;
        rsp_ignored <= 0;
        {ev_started, ev_misconfigured, ev_error, ev_msi, ev_msi_aborted} <= 0;
        if (dma_valid && dma_ready) begin
            dma_valid <= 0;
            dma_wdata <= 0;
        end
        if (was != {cfg_msix_enable, cfg_msix_mask, cfg_master}) sweep = 1;
        was = {cfg_msix_enable, cfg_msix_mask, cfg_master};
        if (!cfg_msix_enable[0]) pending[2047:0] = 0;
        if (!cfg_msix_enable[1]) pending[4095:2048] = 0;
        if (cpl_valid) complete;
        work;
        if (reg_valid)
            case (reg_space)
                0: access_frames;
                1: access_table;
                default:
                    if (reg_write) rsp_ignored <= 1;
                    else if (reg_addr[17:8] == 0) rsp_rdata <= pending[{reg_fn, reg_addr[7:2], 5'b0} +: 32];
            endcase
    end
endmodule
