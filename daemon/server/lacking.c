/* No leader: which members are missing, and what can be done about it. */
#include "daemon/server/server_internal.h"
#include "lib/base/log.h"

#define ELECTIONS_MAX 3 /* election timeouts that an election may take */
#define LOG_MS 60000

static bool answers(struct server *s, const struct replica_member *m)
{
    return replica_hears(s->replica, m->id);
}

static void tell(struct server *s, uint64_t now)
{
    struct buf missing = {0};
    size_t count, voters = 0, active = 0;
    const struct replica_member *members = replica_members(s->replica, &count);
    for (size_t i = 0; i < count; i++) {
        const struct replica_member *m = &members[i];
        if (m->learner)
            continue;
        voters++;
        active += answers(s, m);
        if (!answers(s, m))
            buf_printf(&missing, "%s%s (%s)", missing.n ? ", " : "", m->name[0] ? m->name : "?",
                       m->peer_url_count ? m->peer_urls[0] : "no URL");
    }
    if (active < voters / 2 + 1)
        log_error(
            "cluster",
            "no leader for %llu s: a majority of %zu voters is %zu, and %zu answer, with this "
            "one. Needed is one of: %.*s. If their data is lost for good: stop this member; "
            "`quorumd --rescue NEWDIR --data-dir %s` with its other settings makes a cluster "
            "of one of what it has, to be started on NEWDIR without --initial-cluster",
            (unsigned long long)((now - s->led_ms) / 1000), voters, voters / 2 + 1, active,
            (int)missing.n, (const char *)missing.p, s->config.data_dir);
    buf_free(&missing);
}

void lacking_tick(struct server *s)
{
    struct raft_status status;
    uint64_t now = uv_now(s->loop);
    replica_status(s->replica, &status);
    if (status.leader || s->led_ms == 0 || s->config.quiet) {
        s->led_ms = now;
        s->lack_log_ms = now + ELECTIONS_MAX * s->config.election_ms;
        return;
    }
    if (now < s->lack_log_ms)
        return;
    s->lack_log_ms = now + LOG_MS;
    tell(s, now);
}
