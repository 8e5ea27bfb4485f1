// Drives the npm client node-zookeeper-client: `node client.js HOST:PORT ROOT`. Prints one JSON object of findings.
'use strict';

const { promisify } = require('util');
const zookeeper = require('node-zookeeper-client');

const [hosts, root] = process.argv.slice(2);
const found = {};
const call = (client, name, ...args) => promisify(client[name]).call(client, ...args);

function connect() {
  const client = zookeeper.createClient(hosts, { sessionTimeout: 10000, retries: 2 });
  return new Promise((resolve) => {
    client.once('connected', () => resolve(client));
    client.connect();
  });
}

function close(client) {
  return new Promise((resolve) => {
    client.once('disconnected', resolve);
    client.close();
  });
}

async function nameOfError(promise) {
  try {
    await promise;
    return 'no error';
  } catch (error) {
    return error.name;
  }
}

async function main() {
  const client = await connect();
  const other = await connect();

  found.created = await call(client, 'create', `${root}/a`, Buffer.from('hello'));
  found.data = (await call(client, 'getData', `${root}/a`)).toString();
  found.sequential = await call(client, 'create', `${root}/s-`, null, zookeeper.CreateMode.PERSISTENT_SEQUENTIAL);
  await call(client, 'mkdirp', `${root}/deep/er/est`);
  found.children = (await call(client, 'getChildren', root)).sort();
  found.exists = (await nameOfError(call(client, 'create', `${root}/a`)));
  found.missing = await nameOfError(call(client, 'getData', `${root}/nope`));
  found.version = (await call(client, 'setData', `${root}/a`, Buffer.from('new'), 0)).version;
  found.badVersion = await nameOfError(call(client, 'setData', `${root}/a`, Buffer.from('no'), 7));

  const event = new Promise((resolve) => {
    client.getData(`${root}/a`, resolve, () => call(other, 'setData', `${root}/a`, Buffer.from('x')));
  });
  found.event = (await event).getName();

  const transaction = client.transaction();
  transaction.create(`${root}/t`, Buffer.from('t')).check(`${root}/a`, -1).remove(`${root}/t`);
  found.transaction = (await call(transaction, 'commit')).length;
  const failing = client.transaction().create(`${root}/u`).check(`${root}/a`, 99);
  found.failing = await nameOfError(call(failing, 'commit'));
  found.rolledBack = (await call(client, 'exists', `${root}/u`)) === null;

  client.addAuthInfo('digest', Buffer.from('u:p'));
  await call(client, 'create', `${root}/mine`, null, zookeeper.ACL.CREATOR_ALL_ACL, zookeeper.CreateMode.PERSISTENT);
  found.noAuth = await nameOfError(call(other, 'getData', `${root}/mine`));

  await call(client, 'create', `${root}/e`, null, zookeeper.CreateMode.EPHEMERAL);
  found.ephemeral = (await call(other, 'exists', `${root}/e`)) !== null;
  const gone = new Promise((resolve) => other.exists(`${root}/e`, resolve, () => {}));
  await close(client);
  found.gone = (await gone).getName();
  await close(other);
  console.log(JSON.stringify(found));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
