// Makes the replica set and memcell's user where they aren't there; does nothing where they are. Run by mongosh.
const fs = require("fs");
const secret = (name) => fs.readFileSync(`/run/secrets/${name}`, "utf8").trim();
const root = encodeURIComponent(secret("mongodb_root_password"));

const direct = connect(`mongodb://root:${root}@mongodb:27017/admin?directConnection=true`);
try {
  direct.adminCommand({ replSetGetStatus: 1 });
} catch (error) {
  if (error.codeName !== "NotYetInitialized") throw error;
  direct.adminCommand({ replSetInitiate: { _id: "rs0", members: [{ _id: 0, host: "mongodb:27017" }] } });
}

// Waits until there is a primary.
const database = connect(`mongodb://root:${root}@mongodb:27017/memcell?replicaSet=rs0&authSource=admin`);
const roles = [{ role: "readWrite", db: "memcell" }];
const pwd = secret("mongodb_memcell_password");
if (database.getUser("memcell") === null) {
  database.createUser({ user: "memcell", pwd, roles });
} else {
  database.updateUser("memcell", { pwd, roles });
}
