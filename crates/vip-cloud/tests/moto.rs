//! AWS's API as moto plays it, which nobody here wrote. Where AWS does more than moto, a proxy
//! before it does.

mod proxy;

use proxy::{Does, Proxy, post};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use vip_cloud::{Ask, Aws, AwsSection, Environment};
use vip_core::{CloudReply, Verb, Via, VipSpec};

const LIMIT: Duration = Duration::from_secs(20);
const VIP: &str = "10.99.0.10";
const KEYS: (&str, &str) = ("key", "secret");

/// moto, with a VPC in it; it ends with the value.
struct Moto {
    process: Child,
    made: Value,
    _dir: tempfile::TempDir,
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn python() -> Command {
    let python = here("../../target/python/bin/python");
    assert!(python.exists(), "no moto: run `cargo xtask test` once");
    Command::new(python)
}

impl Moto {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let place = dir.path().join("vpc");
        let mut command = python();
        command.arg(here("tests/vpc.py")).arg(&place).args(["127.0.0.1", "0"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("it starts");
        let mut moto = Self { process, made: Value::Null, _dir: dir };
        moto.made = until_made(&place);
        moto
    }

    fn endpoint(&self) -> &str {
        self.made["endpoint"].as_str().expect("an endpoint")
    }

    fn address(&self) -> SocketAddr {
        self.endpoint().trim_start_matches("http://").parse().expect("an address")
    }

    fn table(&self) -> &str {
        self.made["table"].as_str().expect("a table")
    }

    fn interface(&self, number: usize) -> &str {
        self.made["interfaces"][number].as_str().expect("an interface")
    }

    /// One of its hosts, as it calls the API at `endpoint` with a key.
    fn host(&self, number: usize, endpoint: &str, (key, secret): (&str, &str)) -> Aws {
        let section = AwsSection {
            endpoint: endpoint.to_owned(),
            region: "us-east-1".to_owned(),
            network_interface: self.interface(number).to_owned(),
        };
        let environment = [("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)];
        Aws::new(section, Environment::from(environment), None)
    }

    fn hosts(&self) -> [Aws; 2] {
        [0, 1].map(|number| self.host(number, self.endpoint(), KEYS))
    }

    /// A user with a policy, and its key.
    fn user(&self, name: &str, policy: &str) -> (String, String) {
        let script = "import boto3, sys\n\
            iam = boto3.client('iam', endpoint_url=sys.argv[1], region_name='us-east-1',\n\
                aws_access_key_id='maker', aws_secret_access_key='maker')\n\
            iam.create_user(UserName=sys.argv[2])\n\
            iam.put_user_policy(UserName=sys.argv[2], PolicyName='p', PolicyDocument=sys.argv[3])\n\
            key = iam.create_access_key(UserName=sys.argv[2])['AccessKey']\n\
            print(key['AccessKeyId'], key['SecretAccessKey'])";
        let made = python().args(["-c", script, self.endpoint(), name, policy]).output();
        let made = made.expect("it runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let said = String::from_utf8(made.stdout).expect("text");
        let (key, secret) = said.trim().split_once(' ').expect("a key");
        (key.to_owned(), secret.to_owned())
    }
}

fn until_made(place: &Path) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Ok(text) = std::fs::read_to_string(place) {
            return serde_json::from_str(&text).expect("JSON");
        }
        assert!(Instant::now() < until, "moto does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn vip(table: &str) -> VipSpec {
    VipSpec {
        name: "web".parse().expect("a name"),
        addresses: vec![format!("{VIP}/32").parse().expect("an address")],
        interface: None,
        placement: vip_core::Placement::Sticky,
        no_probe: false,
        via: Via::AwsRoute,
        params: [("route-table".to_owned(), table.to_owned())].into(),
    }
}

async fn call(aws: &Aws, table: &str, verb: Verb) -> CloudReply {
    aws.call(&Ask { spec: vip(table), verb, limit: LIMIT, announced: None }).await
}

async fn token(aws: &Aws, table: &str) -> String {
    match call(aws, table, Verb::Observe).await {
        CloudReply::Elsewhere(token) => token,
        other => panic!("{other:?}"),
    }
}

/// One that is a private address in the hosts' subnet.
fn private(address: &str) -> VipSpec {
    let addresses = vec![format!("{address}/24").parse().expect("an address")];
    VipSpec { addresses, via: Via::AwsPrivateIp, params: [].into(), ..vip("") }
}

/// Why it failed.
async fn failed(aws: &Aws, table: &str, verb: Verb) -> String {
    match call(aws, table, verb).await {
        CloudReply::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_route_is_made_moved_and_let_go_of() {
    let moto = Moto::start();
    let (table, [one, two]) = (moto.table(), moto.hosts());
    let none = token(&one, table).await;
    assert_eq!(none, "none");
    assert_eq!(call(&one, table, Verb::Take(none.clone())).await, CloudReply::Done);
    assert_eq!(call(&one, table, Verb::Observe).await, CloudReply::Here);
    let at_one = token(&two, table).await;
    assert_eq!(at_one, moto.interface(0));
    assert_eq!(call(&two, table, Verb::Take(at_one)).await, CloudReply::Done);
    assert_eq!(call(&two, table, Verb::Observe).await, CloudReply::Here);
    assert_eq!(token(&one, table).await, moto.interface(1));

    // The API compares nothing, so a late call of the earlier holder is done. The holder's next
    // look finds it, and undoes it.
    assert_eq!(call(&one, table, Verb::Take(none)).await, CloudReply::Done);
    let late = token(&two, table).await;
    assert_eq!(call(&two, table, Verb::Take(late)).await, CloudReply::Done);
    assert_eq!(call(&two, table, Verb::Observe).await, CloudReply::Here);

    // Whoever does not have it lets go of nothing.
    assert_eq!(call(&one, table, Verb::Release).await, CloudReply::Done);
    assert_eq!(call(&two, table, Verb::Observe).await, CloudReply::Here);
    assert_eq!(call(&two, table, Verb::Release).await, CloudReply::Done);
    assert_eq!(token(&two, table).await, "none");
    assert_eq!(call(&two, table, Verb::Release).await, CloudReply::Done);
}

#[tokio::test]
async fn a_private_address_is_at_one_interface_and_a_late_call_is_refused() {
    let moto = Moto::start();
    let (spec, [one, two]) = (private("10.77.0.100"), moto.hosts());
    let call = async |aws: &Aws, verb| {
        aws.call(&Ask { spec: spec.clone(), verb, limit: LIMIT, announced: None }).await
    };
    let elsewhere = |token: &str| CloudReply::Elsewhere(token.to_owned());
    let take = |token: &str| Verb::Take(token.to_owned());
    assert_eq!(call(&one, Verb::Observe).await, elsewhere("none"));
    assert_eq!(call(&one, take("none")).await, CloudReply::Done);
    assert_eq!(call(&one, Verb::Observe).await, CloudReply::Here);
    assert_eq!(call(&two, Verb::Observe).await, elsewhere(moto.interface(0)));
    assert_eq!(call(&two, take(moto.interface(0))).await, CloudReply::Done);
    assert_eq!(call(&two, Verb::Observe).await, CloudReply::Here);

    // What the earlier holder asked for late, by what it saw.
    for saw in ["none", moto.interface(2)] {
        let late = call(&one, take(saw)).await;
        assert!(matches!(&late, CloudReply::Failed(why) if why.contains("assigned")), "{late:?}");
        assert_eq!(call(&two, Verb::Observe).await, CloudReply::Here);
    }
    assert_eq!(call(&one, Verb::Release).await, CloudReply::Done);
    assert_eq!(call(&two, Verb::Observe).await, CloudReply::Here);
    assert_eq!(call(&two, Verb::Release).await, CloudReply::Done);
    assert_eq!(call(&two, Verb::Observe).await, elsewhere("none"));

    // Between the two calls that it takes.
    assert_eq!(call(&one, take("none")).await, CloudReply::Done);
    let proxy = Proxy::before(moto.address(), "UnassignPrivateIpAddresses", Does::Loses);
    let three = moto.host(2, &proxy.endpoint(), KEYS);
    let half = call(&three, take(moto.interface(0))).await;
    assert!(matches!(half, CloudReply::Failed(_)), "{half:?}");
    assert_eq!(call(&three, Verb::Observe).await, elsewhere("none"));
    assert_eq!(call(&three, take("none")).await, CloudReply::Done);
    assert_eq!(call(&three, Verb::Observe).await, CloudReply::Here);
}

#[tokio::test]
async fn an_address_that_an_interface_keeps_is_no_vip() {
    let moto = Moto::start();
    let [one, _] = moto.hosts();
    let why = one.check(&private("10.77.0.12")).await.expect_err("it is another host's");
    assert!(why.contains(moto.interface(1)) && why.contains("keeps"), "{why}");
    assert_eq!(one.check(&private("10.77.0.100")).await, Ok(()));
}

#[tokio::test]
async fn what_is_not_there_is_said_before_anything_is_changed() {
    let moto = Moto::start();
    let [one, _] = moto.hosts();
    assert_eq!(one.check(&vip(moto.table())).await, Ok(()));
    assert_eq!(token(&one, moto.table()).await, "none", "it was a trial");
    let why = one.check(&vip("rtb-0")).await.expect_err("there is no such table");
    assert!(why.contains("InvalidRouteTableID.NotFound") && why.contains("rtb-0"), "{why}");
    let why = failed(&one, "rtb-0", Verb::Observe).await;
    assert!(why.contains("InvalidRouteTableID.NotFound"), "{why}");

    // In another region there is nothing of it.
    let section = AwsSection {
        endpoint: moto.endpoint().to_owned(),
        region: "eu-west-1".to_owned(),
        network_interface: moto.interface(0).to_owned(),
    };
    let keys = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let elsewhere = Aws::new(section, Environment::from(keys), None);
    let why = elsewhere.check(&vip(moto.table())).await.expect_err("another region");
    assert!(why.contains("NotFound"), "{why}");
    let found = elsewhere.examine(&[vip(moto.table())]).await;
    assert!(found.iter().any(|f| !f.is_well && f.text.contains("NotFound")), "{found:?}");
}

#[tokio::test]
async fn an_examination_says_what_it_found_and_what_drops_packets() {
    let moto = Moto::start();
    let [one, two] = moto.hosts();
    let spec = vip(moto.table());
    let none = token(&one, moto.table()).await;
    assert_eq!(call(&one, moto.table(), Verb::Take(none)).await, CloudReply::Done);
    let found = two.examine(std::slice::from_ref(&spec)).await;
    assert_eq!(call(&one, moto.table(), Verb::Observe).await, CloudReply::Here, "it only looks");
    let said = |is_well, text: &str| {
        found.iter().any(|finding| finding.is_well == is_well && finding.text.contains(text))
    };
    assert!(said(true, moto.interface(1)) && said(true, "us-east-1"), "{found:?}");
    assert!(said(true, "credentials from the environment"), "{found:?}");
    assert!(said(false, "source/destination check is on"), "{found:?}");
    assert!(said(true, "VIP web can be moved here"), "{found:?}");
    // Nobody says which interface is this node's.
    let section = AwsSection { endpoint: moto.endpoint().to_owned(), ..AwsSection::default() };
    let none = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")];
    let nobody = Aws::new(section, Environment::from(none), Some([10, 77, 0, 1].into()));
    let found = nobody.examine(&[]).await;
    assert!(!found[0].is_well && found[0].text.contains("no instance metadata"), "{found:?}");
}

/// With signatures and permissions, as moto checks them on request.
#[tokio::test]
async fn keys_and_permissions_count() {
    let moto = Moto::start();
    let table = moto.table();
    let policy = std::fs::read_to_string(here("../../deploy/cloud/aws/policy.json"));
    let policy = policy.expect("the policy that is shipped");
    let allowed = moto.user("allowed", &everywhere(&policy));
    let reads = everywhere(&policy).replace("ReplaceRoute", "DescribeVpcs");
    let reader = moto.user("reader", &reads);
    let nothing = everywhere(&policy).replace("ec2:", "s3:");
    let other = moto.user("other", &nothing);
    post(moto.address(), "/moto-api/reset-auth", "0");

    let at = |(key, secret): &(String, String)| moto.host(0, moto.endpoint(), (key, secret));
    let good = at(&allowed);
    let none = token(&good, table).await;
    assert_eq!(call(&good, table, Verb::Take(none)).await, CloudReply::Done);
    assert_eq!(call(&good, table, Verb::Take("again".into())).await, CloudReply::Done);
    assert_eq!(call(&good, table, Verb::Observe).await, CloudReply::Here);
    assert_eq!(good.check(&vip(table)).await, Ok(()));

    // It may look and not touch: an examination says so before anybody needs it.
    let reader = at(&reader);
    let why = failed(&reader, table, Verb::Take(moto.interface(0).to_owned())).await;
    assert!(why.contains("not authorized to perform: ec2:ReplaceRoute"), "{why}");
    let why = reader.check(&vip(table)).await.expect_err("it may not");
    assert!(why.contains("not authorized to perform: ec2:ReplaceRoute"), "{why}");

    let why = failed(&at(&other), table, Verb::Observe).await;
    assert!(why.contains("not authorized to perform: ec2:DescribeRouteTables"), "{why}");
    let wrong = (allowed.0.clone(), "wrong".to_owned());
    let why = failed(&at(&wrong), table, Verb::Observe).await;
    assert!(why.contains("AWS DescribeRouteTables: AuthFailure"), "{why}");
    assert!(!why.contains(&allowed.1), "{why}");
    let why = failed(&at(&("nobody".to_owned(), "wrong".to_owned())), table, Verb::Observe).await;
    assert!(why.contains("AWS DescribeRouteTables: AuthFailure"), "{why}");
    assert_eq!(call(&good, table, Verb::Release).await, CloudReply::Done);
}

/// moto takes no condition, and no resource but all.
fn everywhere(policy: &str) -> String {
    let mut policy: Value = serde_json::from_str(policy).expect("a policy");
    for statement in policy["Statement"].as_array_mut().expect("statements") {
        statement["Resource"] = "*".into();
        statement.as_object_mut().expect("a statement").remove("Condition");
    }
    policy.to_string()
}

#[tokio::test]
async fn an_answer_that_is_lost_is_found_out_by_a_look() {
    let moto = Moto::start();
    let proxy = Proxy::before(moto.address(), "CreateRoute", Does::Loses);
    let one = moto.host(0, &proxy.endpoint(), KEYS);
    let none = token(&one, moto.table()).await;
    let why = failed(&one, moto.table(), Verb::Take(none)).await;
    assert!(why.starts_with("AWS CreateRoute: "), "{why}");
    assert_eq!(call(&one, moto.table(), Verb::Observe).await, CloudReply::Here);
}

#[tokio::test]
async fn what_the_api_says_instead_is_passed_on_within_bounds() {
    let moto = Moto::start();
    let refusal = |code: &str, message: &str| {
        format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error>\
             </Errors></Response>"
        )
    };
    let throttled = refusal("RequestLimitExceeded", "Request limit exceeded.");
    let expired = refusal("RequestExpired", "Request has\nexpired.");
    let page = || "<html>".to_owned();
    for (status, answer, says, is_busy) in [
        (
            "503 Slow",
            throttled,
            "DescribeRouteTables: RequestLimitExceeded: Request limit exceeded.",
            true,
        ),
        ("400 Bad", expired, "RequestExpired: Request has expired.", false),
        ("302 Found\r\nLocation: http://127.0.0.1:1/", String::new(), "HTTP 302", false),
        ("500 Oh", "<".repeat(5 << 20), "an answer of more than", false),
        ("200 OK", "<a>".to_owned(), "what it says is no XML", false),
        ("502 Bad Gateway", page(), "HTTP 502", true),
        ("429 Too Many", page(), "HTTP 429", true),
        ("404 Not Found", page(), "HTTP 404", false),
    ] {
        let does = Does::Says(status, answer);
        let proxy = Proxy::before(moto.address(), "DescribeRouteTables", does);
        let one = moto.host(0, &proxy.endpoint(), KEYS);
        let reply = call(&one, moto.table(), Verb::Observe).await;
        let (CloudReply::Failed(why) | CloudReply::Busy(why)) = &reply else { panic!("{reply:?}") };
        assert!(why.contains(says), "{why}");
        assert_eq!(matches!(reply, CloudReply::Busy(_)), is_busy, "{why}");
    }
    let proxy = Proxy::before(moto.address(), "DescribeRouteTables", Does::Hangs);
    let one = moto.host(0, &proxy.endpoint(), KEYS);
    let limit = Duration::from_millis(300);
    let began = Instant::now();
    let ask = Ask { spec: vip(moto.table()), verb: Verb::Observe, limit, announced: None };
    let CloudReply::Failed(why) = one.call(&ask).await else { panic!("it answered") };
    assert!(why.contains("within 300ms") && began.elapsed() < limit * 10, "{why}");
}
