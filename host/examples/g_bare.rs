//! Temporary.
fn main() -> anyhow::Result<()> {
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    rt.block_on(async {
        let args: Vec<String> = std::env::args().collect();
        let text = std::fs::read_to_string(&args[2])?;
        let docs: Vec<bson::RawDocumentBuf> = text
            .lines()
            .map(|l| Ok(memcell_host::memcell::NewMemCell::from_import_line(l)?.into_memcell(1, 1)?.into_raw()))
            .collect::<anyhow::Result<_>>()?;
        let client = mongodb::Client::with_uri_str(&args[1]).await?;
        let c = client.database("bare").collection::<bson::RawDocumentBuf>("c");
        c.drop().await?;
        for (i, spec) in ["deleted_at", "participants", "created_at", "updated_at"].iter().enumerate() {
            let mut keys = bson::Document::new(); keys.insert(*spec, 1);
            c.create_index(mongodb::IndexModel::builder().keys(keys).options(mongodb::options::IndexOptions::builder().sparse(i < 2).build()).build()).await?;
        }
        for p in [&["user_id"][..], &["group_id"], &["user_id", "type"], &["group_id", "type"]] {
            let mut keys = bson::Document::new(); for k in p { keys.insert(*k, 1); } keys.insert("deleted_at", 1); keys.insert("timestamp", -1);
            c.create_index(mongodb::IndexModel::builder().keys(keys).build()).await?;
        }
        let t = std::time::Instant::now();
        for chunk in docs.chunks(1000) { c.insert_many(chunk).ordered(false).await?; }
        let s = t.elapsed().as_secs_f64();
        println!("bare: {} docs {:.2}s {:.0}/s", docs.len(), s, docs.len() as f64 / s);
        c.drop().await?;
        Ok(())
    })
}
