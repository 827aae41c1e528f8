/* The leases: granted and attached through the client library, renewed on raw streams, so that the time is known at
 * which each answered renewal was sent. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/memory.h"
#include "tests/fault/witness.h"

#define GRANT_EVERY_MS 500
#define RENEW_EVERY_MS 700
#define RENEW_MS 1000 /* an answer takes longer: the next member is asked */
#define AGAIN_MS 50
#define LONG_TTL_S 30 /* longer than any fault keeps all members from answering */
#define TTL_SURE 0.9  /* of the time to live: a member's clock may run fast (test_clocks.py) */

static const int64_t kept_ttls[] = {3, 8, LONG_TTL_S};

static void lease_new(struct witness *w, bool kept, int64_t ttl_s);
static void renew(uv_timer_t *timer);

static void key_of(const struct witness_lease *l, char ret_key[static 64])
{
    snprintf(ret_key, 64, WITNESS_LEASE_PREFIX "%zu", l->number);
}

static uint64_t sure_until(const struct witness_lease *l)
{
    return l->renewed_ns + (uint64_t)((double)l->ttl_s * TTL_SURE * 1e9);
}

/* It ended by a member's word, at this moment or before. */
static void check_end(struct witness_lease *l, const char *how)
{
    if (witness_ns() < sure_until(l))
        witness_wrong(
            l->w, "lease %zu of %" PRId64 " s ended (%s) %.1f s after its last renewal was sent",
            l->number, l->ttl_s, how, (double)(witness_ns() - l->renewed_ns) / 1e9);
    else if (l->kept && l->ttl_s == LONG_TTL_S)
        witness_wrong(l->w, "lease %zu of %" PRId64 " s could not be kept alive", l->number,
                      l->ttl_s);
}

static void abandon(struct witness_lease *l)
{
    l->abandoned = true;
    uv_timer_stop(&l->timer);
    if (l->stream)
        rpc_stream_cancel(l->stream);
    l->stream = NULL;
}

/* Renewed too late, if check_end() found nothing: another one takes its place. */
static void lapse(struct witness_lease *l)
{
    bool kept = l->kept;
    abandon(l);
    l->kept = false;
    l->w->lapsed++;
    if (kept && !l->w->ending)
        lease_new(l->w, true, l->ttl_s);
}

/* ---- Renewing ---------------------------------------------------------------------------------- */

static void renew_after(struct witness_lease *l, uint64_t ms)
{
    uv_timer_start(&l->timer, renew, ms, 0);
}

static void on_renewed(struct rpc_stream *st, void *ctx, struct bytes message)
{
    struct witness_lease *l = ctx;
    Etcdserverpb__LeaseKeepAliveResponse *r =
        etcdserverpb__lease_keep_alive_response__unpack(NULL, message.n, message.p);
    int64_t ttl_s = r ? r->ttl : 0;
    if (!r || r->id != l->id)
        witness_wrong(l->w, "lease %zu: a renewal's answer can't be read", l->number);
    if (r)
        etcdserverpb__lease_keep_alive_response__free_unpacked(r, NULL);
    rpc_stream_cancel(st);
    l->stream = NULL;
    if (ttl_s <= 0) {
        check_end(l, "a renewal was refused");
        lapse(l);
        return;
    }
    if (l->ended_ns)
        witness_wrong(l->w, "lease %zu was renewed after its key was deleted", l->number);
    l->renewed_ns = l->asked_ns;
    l->w->renewals++;
    renew_after(l, RENEW_EVERY_MS);
}

static void on_closed(struct rpc_stream *st, void *ctx, int status, const char *text, bool sent)
{
    (void)st, (void)status, (void)text, (void)sent;
    struct witness_lease *l = ctx;
    l->stream = NULL;
    l->member = (l->member + 1) % l->w->member_count;
    renew_after(l, AGAIN_MS);
}

static const struct rpc_stream_handler renewal = {.message = on_renewed, .closed = on_closed};

static void renew(uv_timer_t *timer)
{
    struct witness_lease *l = timer->data;
    if (!l->kept && l->renewals_left-- == 0) {
        abandon(l);
        return;
    }
    Etcdserverpb__LeaseKeepAliveRequest request = ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    request.id = l->id;
    l->asked_ns = witness_ns();
    l->stream = witness_stream(l->w, l->member, "/etcdserverpb.Lease/LeaseKeepAlive", RENEW_MS,
                               &request.base, &renewal, l);
}

/* ---- Granting ---------------------------------------------------------------------------------- */

static void on_attached(void *ctx, const struct client_result *result)
{
    struct witness_lease *l = ctx;
    l->attached = result->code == ERR_OK;
    if (result->code == ERR_LEASE_NOT_FOUND) {
        check_end(l, "a put was refused");
        lapse(l);
    } else if (!l->abandoned) {
        renew_after(l, RENEW_EVERY_MS);
    }
}

static void on_granted(void *ctx, const struct client_result *result)
{
    struct witness_lease *l = ctx;
    if (result->code != ERR_OK && result->code != ERR_LEASE_EXISTS) {
        lapse(l); /* it may have been granted: then it must end all the same */
        return;
    }
    l->granted = true;
    l->renewed_ns = l->asked_ns;
    if (result->code == ERR_OK)
        l->ttl_s = ((const Etcdserverpb__LeaseGrantResponse *)result->message)->ttl;
    char key[64];
    key_of(l, key);
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    put.key = witness_text(key);
    put.value = witness_text("leased");
    put.lease = l->id;
    client_put(l->w->client, &put, WITNESS_CALL_MS, on_attached, l);
}

static void lease_new(struct witness *w, bool kept, int64_t ttl_s)
{
    if (w->lease_count == WITNESS_LEASES_MAX)
        return;
    struct witness_lease *l = w->leases[w->lease_count] = xcalloc(1, sizeof(*l));
    *l = (struct witness_lease){.w = w,
                                .number = w->lease_count++,
                                .kept = kept,
                                .ttl_s = ttl_s,
                                .renewals_left = kept ? 0 : (unsigned)witness_random(w, 4)};
    l->member = l->number % w->member_count;
    l->id = (int64_t)(env_system()->random(env_system()) & INT64_MAX);
    uv_timer_init(&w->loop, &l->timer);
    l->timer.data = l;
    Etcdserverpb__LeaseGrantRequest request = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    request.ttl = ttl_s;
    request.id = l->id;
    l->asked_ns = witness_ns();
    client_unary(w->client, "/etcdserverpb.Lease/LeaseGrant", &request.base,
                 &etcdserverpb__lease_grant_response__descriptor, true, WITNESS_CALL_MS, on_granted,
                 l);
}

static void grant_next(uv_timer_t *timer)
{
    struct witness *w = timer->data;
    lease_new(w, false, 2 + (int64_t)witness_random(w, 2));
}

void witness_leases_start(struct witness *w)
{
    for (size_t i = 0; i < ARRAY_LEN(kept_ttls); i++)
        lease_new(w, true, kept_ttls[i]);
    uv_timer_init(&w->loop, &w->grant_timer);
    w->grant_timer.data = w;
    uv_timer_start(&w->grant_timer, grant_next, GRANT_EVERY_MS, GRANT_EVERY_MS);
}

/* ---- Their end --------------------------------------------------------------------------------- */

void witness_lease_ended(struct witness *w, const char *key)
{
    size_t number = strtoull(key + strlen(WITNESS_LEASE_PREFIX), NULL, 10);
    struct witness_lease *l = number < w->lease_count ? w->leases[number] : NULL;
    if (!l || l->ended_ns)
        return; /* other watches have told of it */
    l->ended_ns = witness_ns();
    check_end(l, "its key is deleted");
}

void witness_leases_abandon(struct witness *w)
{
    uv_timer_stop(&w->grant_timer);
    for (size_t i = 0; i < w->lease_count; i++) {
        if (!w->leases[i]->kept && !w->leases[i]->abandoned)
            abandon(w->leases[i]);
        w->leases[i]->listed = true; /* until an answer says otherwise */
    }
}

void witness_leases_list(struct witness *w, const Etcdserverpb__LeaseLeasesResponse *r)
{
    for (size_t i = 0; i < w->lease_count; i++) {
        w->leases[i]->listed = false;
        for (size_t k = 0; k < r->n_leases; k++)
            w->leases[i]->listed |= r->leases[k]->id == w->leases[i]->id;
    }
}

size_t witness_leases_left(const struct witness *w)
{
    size_t left = 0;
    for (size_t i = 0; i < w->lease_count; i++) {
        const struct witness_lease *l = w->leases[i];
        left += !l->kept && (l->listed || (l->attached && !l->ended_ns));
    }
    return left;
}

size_t witness_leases_expired(const struct witness *w)
{
    size_t expired = 0;
    for (size_t i = 0; i < w->lease_count; i++)
        expired += w->leases[i]->ended_ns != 0;
    return expired;
}

void witness_leases_stop(struct witness *w)
{
    uv_close((uv_handle_t *)&w->grant_timer, NULL);
    for (size_t i = 0; i < w->lease_count; i++) {
        abandon(w->leases[i]);
        uv_close((uv_handle_t *)&w->leases[i]->timer, NULL);
    }
}
