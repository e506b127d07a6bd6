// A machine tool after OPC 40501 on node-opcua, another stack than asyncua: `node node_opcua_machine.js PORT PKI`.
// It says READY when it listens, and takes the state of its program from lines on standard input: Running, Interrupted,
// Ended, Aborted. It accepts any client's certificate, and keeps its own in the folder PKI.
"use strict";
const opcua = require("node-opcua");
const readline = require("node:readline");

// The numbers of the states in OPC 40501-1, ProductionStateMachineType.
const STATES = { Initializing: 0, Running: 1, Ended: 2, Interrupted: 3, Aborted: 4 };
const [port, pki] = process.argv.slice(2);
const names = ["standard", "di", "machinery", "isa95JobControl", "machineryJobs", "ia", "machineTool"];

async function serve() {
  const trusting = { automaticallyAcceptUnknownCertificate: true, rootFolder: pki };
  const server = new opcua.OPCUAServer({
    port: Number(port),
    nodeset_filename: names.map((name) => opcua.nodesets[name]),
    securityModes: [opcua.MessageSecurityMode.None, opcua.MessageSecurityMode.SignAndEncrypt],
    securityPolicies: [opcua.SecurityPolicy.None, opcua.SecurityPolicy.Basic256Sha256],
    serverCertificateManager: new opcua.OPCUACertificateManager(trusting),
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  const index = (name) => space.getNamespaceIndex(`http://opcfoundation.org/UA/${name}/`);
  const machines = space.rootFolder.objects.getFolderElementByName("Machines", index("Machinery"));
  const type = space.findObjectType("MachineToolType", index("MachineTool"));
  const machine = type.instantiate({ browseName: "5AX-01", organizedBy: machines });
  const set = (path, dataType, value) => {
    const node = path.split("/").reduce((parent, name) => parent.getChildByName(name), machine);
    node.setValueFromSource({ dataType, value });
  };
  const turn = (name) => {
    const state = "Production/ActiveProgram/State/CurrentState";
    set(state, opcua.DataType.LocalizedText, opcua.coerceLocalizedText(name));
    set(`${state}/Number`, opcua.DataType.UInt32, STATES[name]);
  };
  set("Monitoring/MachineTool/OperationMode", opcua.DataType.Int32, 1);
  set("Production/ActiveProgram/Name", opcua.DataType.String, "P4711");
  turn("Initializing");
  await server.start();
  console.log("READY");
  for await (const line of readline.createInterface({ input: process.stdin })) {
    turn(line.trim());
  }
  await server.shutdown(0);
}

serve().catch((error) => {
  console.error(error);
  process.exit(1);
});
