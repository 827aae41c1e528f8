#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "fuse/state.h"

struct core *core_new(const struct core_options *options, const struct core_host *host,
                      struct backend *backend)
{
    struct core *c = xcalloc(1, sizeof *c);
    assert(options->prefix.n == 0 || options->prefix.p[options->prefix.n - 1] == '/');
    c->options = *options;
    c->host = *host;
    c->backend = backend;
    buf_append(&c->prefix, options->prefix.p, options->prefix.n);
    range_end_of(buf_bytes(&c->prefix), &c->prefix_end);
    c->identity_hash = hash_bytes(1, options->identity, strlen(options->identity));
    const char **patterns = xcalloc(options->local_pattern_count + 1, sizeof *patterns);
    for (size_t i = 0; i < options->local_pattern_count; i++)
        patterns[i] = xstrdup(options->local_patterns[i]);
    c->options.local_patterns = patterns;
    c->options.prefix = buf_bytes(&c->prefix);
    c->options.identity = NULL;
    c->started_ns = core_wall_ns(c);
    value_cache_init(&c->cache, options->cache_bytes);
    struct list *lists[] = {&c->inflight,   &c->held,          &c->held_waiters,
                            &c->tombstones, &c->own_revisions, &c->load_waiters,
                            &c->expecting,  &c->lease_waiters, &c->masked,
                            &c->appending,  &c->unsaved};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        list_init(lists[i]);
    struct node *root = node_at(c, BYTES_EMPTY, true);
    inode_attach(c, inode_new(c, true, NULL, 0), root);
    return c;
}

void core_load(struct core *c, void (*done)(void *ctx, enum errc code, const char *text), void *ctx)
{
    mirror_start(c, done, ctx);
}

size_t core_waiting(const struct core *c)
{
    return c->waiting;
}

void core_tick(struct core *c)
{
    mirror_tick(c);
    local_tick(c);
    save_tick(c);
}

static void free_inodes(struct core *c)
{
    for (size_t b = 0; b < c->inodes.size; b++) {
        while (c->inodes.buckets[b]) {
            struct inode *i = CONTAINER_OF(c->inodes.buckets[b], struct inode, link);
            LIST_FOR_EACH_SAFE(it, next, &i->handles)
            {
                struct handle *h = CONTAINER_OF(it, struct handle, link);
                list_remove(&h->link);
                handle_free(c, h);
            }
            inode_view_clear(c, i);
            hash_remove(&c->inodes, &i->link);
            buf_free(&i->gone_key);
            free(i->control_name);
            free(i);
        }
    }
    hash_free(&c->inodes);
    hash_free(&c->views);
}

/* With the backend closed: every call of it has ended. */
void core_free(struct core *c)
{
    tree_free(c);
    free_inodes(c);
    mirror_free(c);
    events_free(c);
    unsaved_free(c);
    for (size_t i = 0; i < c->options.local_pattern_count; i++)
        free((void *)c->options.local_patterns[i]);
    free((void *)c->options.local_patterns);
    buf_free(&c->prefix);
    buf_free(&c->prefix_end);
    free(c);
}

void core_statfs(struct core *c, struct statvfs *ret_st)
{
    /* A store without a known quota is shown as etcd's default. */
    uint64_t quota = c->db_quota > 0 ? (uint64_t)c->db_quota : 2ull << 30;
    uint64_t used = c->db_size > 0 ? (uint64_t)c->db_size : 0;
    uint64_t left = used < quota && !c->no_space ? quota - used : 0;
    *ret_st = (struct statvfs){.f_bsize = 4096,
                               .f_frsize = 4096,
                               .f_blocks = quota / 4096,
                               .f_bfree = left / 4096,
                               .f_bavail = left / 4096,
                               .f_files = c->nodes.count,
                               .f_ffree = 1 << 20,
                               .f_favail = 1 << 20,
                               .f_namemax = CODEC_NAME_MAX};
}
