/* Drives the C client (libzookeeper_mt) against a server: one scene per argument, a line on stdout per finding.
 * Run as: client HOST:PORT ROOT SCENE [SESSION PASSWORD]. Exit code 0 when everything was as expected, 1 with a reason otherwise. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

#define PIPELINED 2000
#define DEADLINE_S 20

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int connected, done, out_of_order, failures;
static char events[4096];
static const char *root;

static void fail(const char *what, int rc) {
    printf("FAILED %s: %s\n", what, zerror(rc));
    exit(1);
}

static void expect(const char *what, int rc, int wanted) {
    if (rc != wanted) fail(what, rc);
}

static void wait_for(const char *what, int *value, int target) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += DEADLINE_S;
    pthread_mutex_lock(&lock);
    while (*value < target)
        if (pthread_cond_timedwait(&changed, &lock, &end)) fail(what, ZOPERATIONTIMEOUT);
    pthread_mutex_unlock(&lock);
}

static void bump(int *value) {
    pthread_mutex_lock(&lock);
    ++*value;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void on_session(zhandle_t *zh, int type, int state, const char *path, void *context) {
    (void)zh, (void)path, (void)context;
    if (type == ZOO_SESSION_EVENT && state == ZOO_CONNECTED_STATE) bump(&connected);
}

static void on_event(zhandle_t *zh, int type, int state, const char *path, void *context) {
    (void)zh, (void)state;
    if (type == ZOO_SESSION_EVENT) return;
    pthread_mutex_lock(&lock);
    size_t used = strlen(events);
    snprintf(events + used, sizeof events - used, "%s:%d:%s;", (char *)context, type, path + strlen(root));
    pthread_mutex_unlock(&lock);
    bump(&done);
}

static zhandle_t *open_client(const char *hosts, const clientid_t *id) {
    connected = 0;
    zhandle_t *zh = zookeeper_init(hosts, on_session, 10000, id, NULL, 0);
    if (!zh) fail("init", ZSYSTEMERROR);
    wait_for("connect", &connected, 1);
    return zh;
}

static char *under(const char *name) {
    static char paths[16][256];
    static int next;
    char *path = paths[next++ % 16];
    snprintf(path, 256, "%s%s", root, name);
    return path;
}

static void scene_basics(zhandle_t *zh) {
    char made[256], data[64];
    int size = sizeof data;
    struct Stat stat;
    struct String_vector names;
    expect("create", zoo_create(zh, under("/a"), "hello", 5, &ZOO_OPEN_ACL_UNSAFE, 0, made, sizeof made), ZOK);
    expect("again", zoo_create(zh, under("/a"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0), ZNODEEXISTS);
    expect("get", zoo_get(zh, under("/a"), 0, data, &size, &stat), ZOK);
    if (size != 5 || memcmp(data, "hello", 5) || stat.version) fail("value", ZDATAINCONSISTENCY);
    expect("null", zoo_create(zh, under("/null"), NULL, -1, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0), ZOK);
    size = sizeof data;
    expect("get null", zoo_get(zh, under("/null"), 0, data, &size, NULL), ZOK);
    if (size != -1) fail("null data must stay null", ZDATAINCONSISTENCY);
    expect("set2", zoo_set2(zh, under("/a"), "x", 1, 0, &stat), ZOK);
    if (stat.version != 1) fail("version", ZBADVERSION);
    expect("bad version", zoo_set(zh, under("/a"), "x", 1, 7), ZBADVERSION);
    expect("create2", zoo_create2(zh, under("/s"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, made, sizeof made, &stat), ZOK);
    if (strcmp(made, under("/s0000000002"))) fail(made, ZDATAINCONSISTENCY);
    expect("ttl", zoo_create2_ttl(zh, under("/t"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_WITH_TTL, 60000, made,
                                  sizeof made, &stat), ZOK);
    expect("container", zoo_create(zh, under("/c"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_CONTAINER, NULL, 0), ZOK);
    expect("children", zoo_get_children2(zh, root, 0, &names, &stat), ZOK);
    if (names.count != 5 || stat.numChildren != 5) fail("five children", ZDATAINCONSISTENCY);
    deallocate_String_vector(&names);
    expect("auth", zoo_add_auth(zh, "digest", "u:p", 3, NULL, NULL), ZOK);
    expect("creator", zoo_create(zh, under("/p"), "", 0, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0), ZOK);
    struct ACL_vector acl;
    expect("getacl", zoo_get_acl(zh, under("/p"), &acl, &stat), ZOK);
    if (acl.count != 1 || strcmp(acl.data[0].id.scheme, "digest")) fail("creator acl", ZINVALIDACL);
    expect("delete", zoo_delete(zh, under("/a"), -1), ZOK);
    expect("gone", zoo_exists(zh, under("/a"), 0, NULL), ZNONODE);
}

static void scene_watches(zhandle_t *zh) {
    char data[8];
    int size = sizeof data;
    expect("exists", zoo_wexists(zh, under("/w"), on_event, "exists", NULL), ZNONODE);
    struct String_vector names;
    expect("children", zoo_wget_children(zh, root, on_event, "children", &names), ZOK);
    expect("create", zoo_create(zh, under("/w"), "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0), ZOK);
    wait_for("created", &done, 2);
    expect("get", zoo_wget(zh, under("/w"), on_event, "data", data, &size, NULL), ZOK);
    expect("set", zoo_set(zh, under("/w"), "2", 1, -1), ZOK);
    wait_for("changed", &done, 3);
    expect("exists", zoo_wexists(zh, under("/w"), on_event, "exists", NULL), ZOK);
    expect("delete", zoo_delete(zh, under("/w"), -1), ZOK);
    wait_for("deleted", &done, 4);
    expect("remove", zoo_remove_watches(zh, root, ZWATCHTYPE_CHILD, on_event, "children", 0), ZNOWATCHER);
    printf("%s\n", events);
}

static void scene_multi(zhandle_t *zh) {
    char first[256], second[256];
    struct Stat stat;
    zoo_op_t ops[5];
    zoo_op_result_t results[5];
    zoo_create_op_init(&ops[0], under("/m"), "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, first, sizeof first);
    zoo_create_op_init(&ops[1], under("/m/s"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, second, sizeof second);
    zoo_set_op_init(&ops[2], under("/m"), "22", 2, 0, &stat);
    zoo_check_op_init(&ops[3], under("/m"), 1);
    zoo_delete_op_init(&ops[4], under("/m/s0000000000"), -1);
    expect("multi", zoo_multi(zh, 5, ops, results), ZOK);
    if (stat.version != 1 || strcmp(second, under("/m/s0000000000"))) fail("results", ZDATAINCONSISTENCY);
    zoo_check_op_init(&ops[1], under("/m"), 99);
    zoo_create_op_init(&ops[0], under("/n"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, first, sizeof first);
    expect("failing multi", zoo_multi(zh, 3, ops, results), ZBADVERSION);
    printf("%d %d %d\n", results[0].err, results[1].err, results[2].err);
    expect("rolled back", zoo_exists(zh, under("/n"), 0, NULL), ZNONODE);
}

static void on_created(int rc, const char *value, const void *data) {
    (void)value;
    if (rc != ZOK) failures++;
    if ((long)data != done) out_of_order++;
    bump(&done);
}

static void on_read(int rc, const char *value, int size, const struct Stat *stat, const void *data) {
    (void)stat;
    long number = (long)data;
    if (rc != ZOK || size != (int)sizeof number || memcmp(value, &number, sizeof number)) failures++;
    if (number + PIPELINED != done) out_of_order++;
    bump(&done);
}

static void scene_pipeline(zhandle_t *zh) {
    char name[32];
    for (long number = 0; number < PIPELINED; number++) {
        snprintf(name, sizeof name, "/%ld", number);
        expect("acreate", zoo_acreate(zh, under(name), (char *)&number, sizeof number, &ZOO_OPEN_ACL_UNSAFE, 0,
                                      on_created, (void *)number), ZOK);
    }
    for (long number = 0; number < PIPELINED; number++) {
        snprintf(name, sizeof name, "/%ld", number);
        expect("aget", zoo_aget(zh, under(name), 0, on_read, (void *)number), ZOK);
    }
    wait_for("all answers", &done, 2 * PIPELINED);
    printf("%d answers, %d failed, %d out of order\n", done, failures, out_of_order);
    if (failures || out_of_order) exit(1);
}

/* Leaves without closing, so that the session stays; prints what `resume` needs. */
static void scene_leave(zhandle_t *zh) {
    const clientid_t *id = zoo_client_id(zh);
    expect("ephemeral", zoo_create(zh, under("/e"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0), ZOK);
    printf("%llx ", (unsigned long long)id->client_id);
    for (int i = 0; i < 16; i++) printf("%02x", (unsigned char)id->passwd[i]);
    printf("\n");
    fflush(stdout);
    _exit(0);
}

static clientid_t parse_id(const char *session, const char *password) {
    clientid_t id = {.client_id = (int64_t)strtoull(session, NULL, 16)};
    for (int i = 0; i < 16; i++) {
        unsigned byte;
        sscanf(password + 2 * i, "%2x", &byte);
        id.passwd[i] = (char)byte;
    }
    return id;
}

static void scene_resume(const char *hosts, clientid_t id) {
    struct Stat stat;
    zhandle_t *zh = open_client(hosts, &id);
    if (zoo_client_id(zh)->client_id != id.client_id) fail("same session", ZSESSIONEXPIRED);
    expect("still there", zoo_exists(zh, under("/e"), 0, &stat), ZOK);
    if (stat.ephemeralOwner != id.client_id) fail("owner", ZDATAINCONSISTENCY);
    expect("close", zookeeper_close(zh), ZOK);
    zhandle_t *other = open_client(hosts, NULL);
    expect("gone", zoo_exists(other, under("/e"), 0, NULL), ZNONODE);
    zookeeper_close(other);
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    const char *hosts = argv[1], *scene = argv[3];
    root = argv[2];
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    if (!strcmp(scene, "resume") && argc == 6) {
        scene_resume(hosts, parse_id(argv[4], argv[5]));
    } else {
        zhandle_t *zh = open_client(hosts, NULL);
        if (!strcmp(scene, "basics")) scene_basics(zh);
        else if (!strcmp(scene, "watches")) scene_watches(zh);
        else if (!strcmp(scene, "multi")) scene_multi(zh);
        else if (!strcmp(scene, "pipeline")) scene_pipeline(zh);
        else if (!strcmp(scene, "leave")) scene_leave(zh);
        else return 2;
        zookeeper_close(zh);
    }
    printf("ok\n");
    return 0;
}
