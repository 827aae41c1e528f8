/* What goes wrong. Each seed draws which kinds of fault are on and how strong (swarm testing): a run with
 * few kinds goes deeper into them than one with all. When the liveness phase begins, all of it stops. */
#ifndef SIM_FAULTS_H
#define SIM_FAULTS_H

#include "tests/sim/world.h"

struct sim;
struct simnode;

enum fault_kind {
    FAULT_CRASH,     /* at once */
    FAULT_CRASH_IO,  /* at a coming call of the disk */
    FAULT_BLACKOUT,  /* all machines lose power */
    FAULT_PAUSE,     /* as SIGSTOP */
    FAULT_PARTITION, /* a group from the rest */
    FAULT_ISOLATE,   /* one, in one direction or both */
    FAULT_BRIDGE,    /* two halves that only one member connects */
    FAULT_SLOW_LINK,
    FAULT_RESET, /* of a connection */
    FAULT_CLOCK, /* wall clock jumps */
    FAULT_SLOW_DISK,
    FAULT_DISK_HANG,
    FAULT_IO_ERROR,
    FAULT_DISK_FULL,
    FAULT_KILL,      /* in the middle of something, as when memory is short */
    FAULT_ATTRITION, /* a crash with a long rest */
    FAULT_SWIZZLE,   /* members are cut off one by one, and come back in another order */
    FAULT_ROT,       /* of what a disk holds: rot.h */
    FAULT_MISDIRECT, /* a write goes to another place of its file: rot.h */
    FAULT_WIPE,      /* a disk is lost: repair.h */
    FAULT_KINDS,
};

struct faults {
    struct sim *sim;
    struct simrng rng;
    bool on[FAULT_KINDS];
    uint64_t mean[FAULT_KINDS]; /* ns between two */
    uint64_t count[FAULT_KINDS];
    uint64_t partitions; /* so many have begun: an old one doesn't heal a newer one */
    uint64_t clogged;    /* members, as bits, by FAULT_SWIZZLE */
    bool repairs;        /* there may be something for repair.h */

    /* The network. */
    uint64_t delay_max, late_max; /* ns */
    unsigned loss_percent, duplicate_percent, reorder_percent, late_percent, damage_permille;
    unsigned answer_loss_permille;
    /* Machines. */
    unsigned power_percent; /* of crashes: the power failed */
    unsigned slow_disk_factor, drift_permille;
    unsigned crash_in_start_percent;
    unsigned chase_percent; /* of elections: the new leader is struck within its first moments */
    /* Configuration and load. */
    uint64_t snapshot_entries, tick_ms;
    uint64_t quota_bytes; /* 0: the default, which is never reached */
    size_t value_bytes;   /* of puts, 0: only the number */
    size_t segment_bytes, checkpoint_pages, client_count;
    uint64_t lease_checkpoint_ms;
    size_t append_bytes_max, uncommitted_bytes_max;
    size_t snapshot_chunk;      /* bytes; 0: the default, which holds all of it */
    uint32_t stream_chunks_max; /* of a snapshot: each breaks after so many; 0: never */
    unsigned compact_percent;   /* of requests */
    uint64_t think_ms;
    unsigned slow_watch_percent;
    unsigned defragments;    /* 0: nobody defragments, else admin.c draws it */
    unsigned administration; /* how often the operator changes something, percent of his steps */
};

void faults_draw(struct faults *f, struct sim *s);
void faults_start(struct faults *f);
void faults_stop(struct faults *f);                /* all machines run, all links are whole */
void faults_before_start(struct simnode *n);       /* it may crash while it starts */
void faults_new_leader(struct simnode *n);         /* it has just been elected */
void faults_snapshot_installed(struct simnode *n); /* in the store, and not yet in the log */

#endif
