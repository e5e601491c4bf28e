package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/kustomize"
	"healthgate/e2e/testbed"
)

// overlay holds the objects of manifests/overlays/envoy-gateway that Envoy Gateway reads.
type overlay []*unstructured.Unstructured

// kindsRead are the kinds that Envoy Gateway reads. The others are for the kubelet and the network.
var kindsRead = []string{"Gateway", "HTTPRoute", "GRPCRoute", "Service", "EnvoyProxy", "EnvoyExtensionPolicy", "EnvoyPatchPolicy",
	"BackendTrafficPolicy", "ClientTrafficPolicy", "HTTPRouteFilter"}

// renderOverlay renders the overlay.
func renderOverlay() (overlay, error) {
	rendered, err := kustomize.Build(kustomize.EnvoyGateway)
	if err != nil {
		return nil, err
	}
	var objects overlay
	for _, resource := range rendered.Resources() {
		if !slices.Contains(kindsRead, resource.GetKind()) {
			continue
		}
		text, err := resource.AsYAML()
		if err != nil {
			return nil, err
		}
		one, err := readObject(text)
		if err != nil {
			return nil, err
		}
		one.SetNamespace("default")
		objects = append(objects, one)
	}
	return objects, nil
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
	class := object("gateway.networking.k8s.io/v1", "GatewayClass", "eg",
		"spec", map[string]any{"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"})
	secret := object("v1", "Secret", "envoy-tls", "type", "kubernetes.io/tls", "data", map[string]any{"tls.crt": pair[0], "tls.key": pair[1]})
	secret.SetNamespace("default")
	return append(o.clone(), class, secret), nil
}

// readObject reads an object from YAML.
func readObject(text []byte) (*unstructured.Unstructured, error) {
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	o := &unstructured.Unstructured{}
	return o, o.UnmarshalJSON(asJSON)
}

// object makes an object of pairs of a field and its value.
func object(apiVersion, kind, name string, fields ...any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{}}
	for i := 0; i < len(fields); i += 2 {
		o.Object[fields[i].(string)] = fields[i+1]
	}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetName(name)
	return o
}

// get returns an object by its kind and name.
func (o overlay) get(kind, name string) *unstructured.Unstructured {
	for _, one := range o {
		if one.GetKind() == kind && one.GetName() == name {
			return one
		}
	}
	panic("the overlay has no " + kind + " " + name)
}

func (o overlay) clone() overlay {
	clone := make(overlay, len(o))
	for i, one := range o {
		clone[i] = one.DeepCopy()
	}
	return clone
}

func (o overlay) yaml() ([]byte, error) {
	var all [][]byte
	for _, one := range o {
		text, err := yaml.Marshal(one.Object)
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return bytes.Join(all, []byte("---\n")), nil
}

// set puts a value into an object that has no list on the way.
func set(o *unstructured.Unstructured, value any, path ...string) {
	if err := unstructured.SetNestedField(o.Object, value, path...); err != nil {
		panic(err)
	}
}

// items returns a list of an object. What the caller changes in it is changed in the object.
func items(o *unstructured.Unstructured, path ...string) []any {
	value, found, err := unstructured.NestedFieldNoCopy(o.Object, path...)
	if err != nil || !found {
		panic(fmt.Sprintf("%s %s has no %v: %v", o.GetKind(), o.GetName(), path, err))
	}
	return value.([]any)
}

// forTranslation returns the overlay as egctl translates it whole: egctl reads no EndpointSlices, so a headless Service has no endpoint
// there, and a Service with an address has one.
func (o overlay) forTranslation() overlay {
	o = o.clone()
	set(o.get("Service", "service"), "127.0.0.1", "spec", "clusterIP")
	return o
}

// forHost returns the overlay as a standalone Envoy Gateway runs it: Envoy is a process on this host, it finds the module in another
// folder, and the Service is a Backend, by the addresses of its endpoints.
func (o overlay) forHost(envoyVersion, module string, addresses ...string) overlay {
	o = o.clone()
	proxy := o.get("EnvoyProxy", "envoy")
	set(proxy, map[string]any{"type": "Host", "host": map[string]any{"envoyVersion": envoyVersion}}, "spec", "provider")
	items(proxy, "spec", "dynamicModules")[0].(map[string]any)["source"].(map[string]any)["local"] = map[string]any{"path": module}
	o = slices.DeleteFunc(o, func(one *unstructured.Unstructured) bool { return one.GetKind() == "Service" })
	for _, rule := range items(o.get("GRPCRoute", "service"), "spec", "rules") {
		rule.(map[string]any)["backendRefs"] = refer("service")
	}
	return append(o, backend("service", addresses...))
}

// refer returns the backendRefs of a rule whose backend is a Backend.
func refer(name string) []any {
	return []any{map[string]any{"group": "gateway.envoyproxy.io", "kind": "Backend", "name": name}}
}

func backend(name string, addresses ...string) *unstructured.Unstructured {
	endpoints := []any{}
	for _, address := range addresses {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			panic(err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			panic(err)
		}
		endpoints = append(endpoints, map[string]any{"ip": map[string]any{"address": host, "port": int64(number)}})
	}
	o := object("gateway.envoyproxy.io/v1alpha1", "Backend", name, "spec",
		map[string]any{"endpoints": endpoints, "appProtocols": []any{"gateway.envoyproxy.io/h2c"}})
	o.SetNamespace("default")
	return o
}

// without returns the overlay without an object.
func (o overlay) without(kind, name string) overlay {
	return slices.DeleteFunc(o.clone(), func(one *unstructured.Unstructured) bool { return one.GetKind() == kind && one.GetName() == name })
}

// withFirstRule returns the overlay with another rule, to another backend, before the rule of the service.
func (o overlay) withFirstRule(address string) overlay {
	o = o.clone()
	route := o.get("GRPCRoute", "service")
	first := map[string]any{
		"matches":     []any{map[string]any{"method": map[string]any{"service": "first.First"}}},
		"backendRefs": refer("first"),
	}
	set(route, append([]any{first}, items(route, "spec", "rules")...), "spec", "rules")
	return append(o, backend("first", address))
}

// withGate returns the overlay with one key set in the configuration of the gate.
func (o overlay) withGate(key string, value any) overlay {
	o = o.clone()
	module := items(o.get("EnvoyExtensionPolicy", "probe"), "spec", "dynamicModule")[0].(map[string]any)
	module["config"].(map[string]any)[key] = value
	return o
}
