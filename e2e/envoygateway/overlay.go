package main

import (
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/kustomize"
	"healthgate/e2e/testbed"
)

// overlay holds the objects of manifests/overlays/envoy-gateway that Envoy Gateway reads. Its methods return a changed copy.
type overlay []object

// object is an object in JSON.
type object struct {
	kind, name string
	json       []byte
}

// kindsRead are the kinds that Envoy Gateway reads. The others are for the kubelet and the network.
var kindsRead = []string{"Gateway", "HTTPRoute", "GRPCRoute", "Service", "EnvoyProxy", "EnvoyExtensionPolicy", "EnvoyPatchPolicy",
	"BackendTrafficPolicy", "ClientTrafficPolicy", "HTTPRouteFilter"}

// renderOverlay renders the overlay.
func renderOverlay() (objects overlay, err error) {
	rendered, err := kustomize.Build(kustomize.EnvoyGateway)
	if err != nil {
		return nil, err
	}
	for _, resource := range rendered.Resources() {
		if slices.Contains(kindsRead, resource.GetKind()) {
			objects = objects.with(resource.MustYaml())
		}
	}
	return objects, nil
}

// with returns the overlay with another object, in YAML.
func (o overlay) with(text string) overlay {
	asJSON, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		panic(err)
	}
	var has struct {
		Kind     string
		Metadata struct{ Name string }
	}
	if err := yaml.Unmarshal(asJSON, &has); err != nil {
		panic(err)
	}
	added := overlay{{has.Kind, has.Metadata.Name, asJSON}}
	if has.Kind != "GatewayClass" {
		added = added.patch(has.Kind, has.Metadata.Name, `[{op: add, path: /metadata/namespace, value: default}]`)
	}
	return slices.Concat(o, added)
}

// patch returns the overlay with an object changed by a JSON patch (RFC 6902), in YAML.
func (o overlay) patch(kind, name, patch string) overlay {
	o = slices.Clone(o)
	i := slices.IndexFunc(o, func(one object) bool { return one.kind == kind && one.name == name })
	asJSON, err := yaml.YAMLToJSON([]byte(patch))
	if err == nil {
		var decoded jsonpatch.Patch
		if decoded, err = jsonpatch.DecodePatch(asJSON); err == nil {
			o[i].json, err = decoded.Apply(o[i].json)
		}
	}
	if err != nil {
		panic(fmt.Sprintf("%s %s: %v in %s", kind, name, err, patch))
	}
	return o
}

// without returns the overlay without the objects of a kind.
func (o overlay) without(kind string) overlay {
	return slices.DeleteFunc(slices.Clone(o), func(one object) bool { return one.kind == kind })
}

func (o overlay) yaml() string {
	var all []string
	for _, one := range o {
		text, err := yaml.JSONToYAML(one.json)
		if err != nil {
			panic(err)
		}
		all = append(all, string(text))
	}
	return strings.Join(all, "---\n")
}

// inCluster returns the overlay with what its user has in the cluster: a GatewayClass, and a certificate.
func (o overlay) inCluster(certificate *testbed.Certificate) (overlay, error) {
	var pair [2]string
	for i, file := range []string{certificate.CertFile, certificate.KeyFile} {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		pair[i] = base64.StdEncoding.EncodeToString(text)
	}
	return o.with(`
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: eg}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}`).with(fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: envoy-tls}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s}`, pair[0], pair[1])), nil
}

// forTranslation returns the overlay as egctl translates it whole: egctl reads no EndpointSlices, so a headless Service has no endpoint
// there, and a Service with an address has one.
func (o overlay) forTranslation() overlay {
	return o.patch("Service", "service", `[{op: replace, path: /spec/clusterIP, value: 127.0.0.1}]`)
}

// forHost returns the overlay as a standalone Envoy Gateway runs it: Envoy is a process on this host, it finds the module in another
// folder, and the Service is a Backend, by the addresses of its endpoints.
func (o overlay) forHost(envoyVersion, module string, addresses ...string) overlay {
	return o.without("Service").withBackend("service", addresses...).
		patch("EnvoyProxy", "envoy", fmt.Sprintf(`
- {op: replace, path: /spec/provider, value: {type: Host, host: {envoyVersion: %s}}}
- {op: replace, path: /spec/dynamicModules/0/source/local/path, value: %q}`, envoyVersion, module)).
		patch("GRPCRoute", "service", `
- {op: replace, path: /spec/rules/0/backendRefs, value: [{group: gateway.envoyproxy.io, kind: Backend, name: service}]}`)
}

// withBackend returns the overlay with a Backend.
func (o overlay) withBackend(name string, addresses ...string) overlay {
	var endpoints []string
	for _, address := range addresses {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			panic(err)
		}
		endpoints = append(endpoints, fmt.Sprintf("{ip: {address: %s, port: %s}}", host, port))
	}
	return o.with(fmt.Sprintf(`
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: %s}
spec: {endpoints: [%s], appProtocols: [gateway.envoyproxy.io/h2c]}`, name, strings.Join(endpoints, ", ")))
}

// withFirstRule returns the overlay with another rule, to another backend, before the rule of the service.
func (o overlay) withFirstRule(address string) overlay {
	return o.withBackend("first", address).patch("GRPCRoute", "service", `
- op: add
  path: /spec/rules/0
  value:
    matches: [{method: {service: first.First}}]
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: first}]`)
}

// misspelt returns the overlay with a key in the configuration of the gate that Healthgate does not know.
func (o overlay) misspelt() overlay {
	return o.patch("EnvoyExtensionPolicy", "probe", `[{op: add, path: /spec/dynamicModule/0/config/min_helthy, value: 1}]`)
}
